"""The bounded part of `make fuzz`."""

import pytest

from iiot_platform.engine.decode import Decoded
from tests.fuzz import payloads

COUNT = 6_000


def test_every_message_is_read_or_set_aside_and_rubbish_changes_nothing() -> None:
    tally = payloads.fuzz(COUNT, seed=1)
    assert tally.messages == tally.read + tally.set_aside == COUNT
    assert min(tally.read, tally.set_aside) > COUNT // 10
    # the mutations reach what a decoder can refuse
    assert len(tally.reasons) >= 8, tally.reasons


def test_a_message_that_vanishes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = payloads.decode

    def forgetful(*arguments: object) -> Decoded:
        found = decode(*arguments)  # type: ignore[arg-type]  # passed on as they come
        return Decoded(found.readings, found.quarantine[1:], found.misnamed)

    monkeypatch.setattr(payloads, "decode", forgetful)
    with pytest.raises(payloads.BrokenLawError, match="seed 5, 500 messages: 1 messages are gone"):
        payloads.fuzz(500, seed=5)
