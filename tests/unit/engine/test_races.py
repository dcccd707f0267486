"""What another process commits between reading and committing is neither lost nor overwritten."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, PLANT, contents, drain, engine_at, settle
from tests.servers.streams import BASE_MS, line_records, signal

HOUR = hour_of(BASE_MS)
RECORDS = line_records(11, 90, spread_ms=3_000_000)


def once(owner: object, name: str, action: Callable[[], object], *, after: bool) -> None:
    """Lets an action happen once, right before or after a method's next call."""
    method = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        setattr(owner, name, method)
        if not after:
            action()
        result = method(*args, **kwargs)
        if after:
            action()
        return result

    setattr(owner, name, wrapped)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], str]:
    """What one batch makes of the records, whatever the ledger is kept in."""
    engine = engine_at(tmp_path_factory.mktemp("once"), RECORDS)
    drain(engine, [10_000])
    return contents(engine)


@pytest.mark.parametrize(
    ("place", "after"),
    [("log.read", True), ("ledger.ranges", True), ("ledger.hour_files", True), ("log.read", False)],
)
def test_a_rerun_that_a_live_batch_overtakes_loses(
    home: Home,
    expected: dict[tuple[str, int], str],
    place: str,
    after: bool,  # noqa: FBT001 - a parameter
) -> None:
    engine = engine_at(home.root, RECORDS)
    engine.run_batch(LINE, run_id="first", row_cap=50)
    other = Engine(home, PLANT)
    owner, _, name = place.partition(".")
    once(getattr(engine, owner), name, lambda: drain(other, [100]), after=after)
    with pytest.raises(CommitLostError):
        engine.rerun(LINE, HOUR, run_id="rerun")
    engine.rerun(LINE, HOUR, run_id="again")
    assert contents(engine) == expected


@pytest.mark.parametrize(
    ("place", "after"),
    [("log.read", True), ("ledger.versions", False), ("ledger.states", True)],
)
def test_a_live_batch_beside_a_rerun_loses_or_rests_on_it(
    home: Home,
    expected: dict[tuple[str, int], str],
    place: str,
    after: bool,  # noqa: FBT001 - a parameter
) -> None:
    engine = engine_at(home.root, RECORDS)
    engine.run_batch(LINE, run_id="first", row_cap=50)
    other = Engine(home, PLANT)
    owner, _, name = place.partition(".")
    once(
        getattr(engine, owner),
        name,
        lambda: other.rerun(LINE, HOUR, run_id="rerun"),
        after=after,
    )
    lost = 0
    while True:
        try:
            if engine.run_batch(LINE, run_id="live", row_cap=100) is None:
                break
        except CommitLostError:
            lost += 1
    assert lost == (1 if place == "ledger.states" else 0)
    assert contents(engine) == expected


@pytest.mark.parametrize(
    ("threshold", "reason"), [(3.5, "late"), (2.0, "settings changed")], ids=["late", "settings"]
)
def test_rows_that_a_batch_leaves_beside_a_rerun_are_a_reason(
    home: Home, threshold: float, reason: str
) -> None:
    first = [signal("t", BASE_MS + i * 1_000, float(i % 4)) for i in range(60)]
    behind = [signal("t", BASE_MS + 3_600_000, 1.0)]
    drain(engine_at(home.root, [*first, *behind]), [1_000])
    late = signal("t", BASE_MS + 500, 2.5, received=BASE_MS + 2 * 3_600_000)
    write_segments(home, LINE, [late])
    body = PLANT.model_dump(mode="json", exclude_unset=True)
    body["defaults"]["signal"]["threshold"] = threshold
    engine, other = Engine(home, PLANT), Engine(home, Plant.model_validate(body))
    once(engine.ledger, "ranges", lambda: drain(other, [100]), after=False)
    found = engine.rerun(LINE, HOUR, run_id="rerun")
    assert {difference.reason for difference in found.differences} == {reason}
    # its mark was not there when the rerun began: it may rest on a row that was not read
    assert engine.dirty_hours(LINE) == [HOUR, HOUR + 1]
    assert engine.rerun(LINE, HOUR, run_id="again").equal


def test_an_hour_that_began_while_the_one_before_changed_is_computed_again(
    home: Home, tmp_path: Path
) -> None:
    before = [signal("t", BASE_MS + i * 1_000, float(i % 4)) for i in range(60)]
    behind = [signal("t", BASE_MS + 3_600_000 + i * 1_000, float(i % 4)) for i in range(10)]
    drain(engine_at(home.root, before), [1_000])
    changed = Plant.model_validate({"lines": [LINE], "defaults": {"signal": {"window": 7}}})
    engine, other = Engine(home, changed), Engine(home, changed)
    write_segments(home, LINE, behind)
    once(engine.ledger, "commit", lambda: drain(other, [100]), after=False)
    engine.rerun(LINE, HOUR, run_id="rerun", settings="current")
    assert engine.dirty_hours(LINE) == [HOUR + 1]
    settle(engine)
    fresh = engine_at(tmp_path / "once", [*before, *behind], changed)
    drain(fresh, [1_000])
    assert contents(engine) == contents(fresh)


def test_of_two_batches_over_the_same_offsets_one_wins(
    home: Home, expected: dict[tuple[str, int], str]
) -> None:
    engine = engine_at(home.root, RECORDS)
    other = Engine(home, PLANT)
    once(engine.ledger, "commit", lambda: other.run_batch(LINE, run_id="other"), after=False)
    with pytest.raises(CommitLostError, match="watermark"):
        engine.run_batch(LINE, run_id="loser")
    assert [batch["run_id"] for batch in engine.ledger.batches(LINE, 5)] == ["other"]
    assert contents(engine) == expected
