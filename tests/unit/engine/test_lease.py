"""A lease is held by one, ends with its block or its time, and is never taken from another."""

import pytest

from iiot_platform.core.paths import Home
from iiot_platform.engine.lease import lease
from iiot_platform.engine.ledger import Ledger


def test_one_holds_it_at_a_time(home: Home) -> None:
    first, second = Ledger.of(home), Ledger.of(home)
    with lease(first, "drain:line1", 60) as held:
        assert held
        with lease(second, "drain:line1", 60) as also:
            assert not also
        with lease(first, "drain:line1", 60) as twice:
            assert not twice
        with lease(second, "drain:line2", 60) as other:
            assert other
        with lease(second, "drain:line1", 60) as still:
            assert not still
    with lease(second, "drain:line1", 60) as now:
        assert now


def test_it_ends_when_its_time_is_over(home: Home) -> None:
    ledger = Ledger.of(home)
    now = 1_000
    with lease(ledger, "drain", 5, clock=lambda: now) as held:
        assert held
        now = 5_999
        with lease(ledger, "drain", 5, clock=lambda: now) as early:
            assert not early
        now = 6_000
        with lease(ledger, "drain", 5, clock=lambda: now) as after:
            assert after
    with lease(ledger, "drain", 5, clock=lambda: now) as free:
        assert free


def test_who_overstayed_does_not_end_the_next_one(home: Home) -> None:
    ledger = Ledger.of(home)
    now = 1_000
    late = lease(ledger, "drain", 5, clock=lambda: now)
    assert late.__enter__()
    now = 7_000
    with lease(ledger, "drain", 5, clock=lambda: now) as held:
        assert held
        late.__exit__(None, None, None)
        with lease(ledger, "drain", 5, clock=lambda: now) as third:
            assert not third


def test_it_ends_with_an_error_too(home: Home) -> None:
    ledger = Ledger.of(home)
    with pytest.raises(ValueError, match="broken"), lease(ledger, "drain", 60):
        raise ValueError("broken")
    with lease(ledger, "drain", 60) as held:
        assert held
