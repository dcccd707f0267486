"""The bounded part of `make fuzz`."""

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from iiot_platform.core import schema
from iiot_platform.engine.decode import Decoded
from tests.fuzz import payloads, sparkplug_messages
from tests.servers.engines import LINE, drain, engine_at, rows_of, settle

COUNT = 6_000
IDENTITY = ["topic", "ts", "kind", "name", "operation", "payload_hash"]
"""What makes a reading the same one."""


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


def test_tables_hold_every_reading_once_and_every_message_that_was_set_aside(
    tmp_path: Path,
) -> None:
    choose, good = random.Random(3), payloads.corpus()[:60]
    records = [payloads.mutant(choose, good) for _ in range(300)] + good
    records += choose.sample(records, 60)
    decoded = payloads.decode(payloads.table_of(list(enumerate(records))), payloads.SETTINGS)
    readings = decoded.readings.to_table().select(IDENTITY).to_pylist()
    distinct = Counter({repr(row): 1 for row in readings})
    with closing(engine_at(tmp_path, records, rows=100)) as engine:
        drain(engine, [200])
        settle(engine)
        hours = engine.ledger.hours(LINE)
        rows, aside = (
            [row for hour in hours for row in rows_of(engine, table, hour).to_pylist()]
            for table in (schema.READINGS, schema.QUARANTINE)
        )
    assert Counter(repr({name: row[name] for name in IDENTITY}) for row in rows) == distinct
    wanted = [e.offset for e in decoded.quarantine if e.reason != schema.GAP]
    assert sorted(row["offset"] for row in aside) == wanted
    assert len(readings) > len(rows)  # some came twice


def test_broken_sparkplug_messages_raise_nothing_and_change_no_others() -> None:
    tally = sparkplug_messages.fuzz(2_000, seed=1)
    assert tally.read > 500
    assert {"not_sparkplug", "unknown_alias", "bad_topic"} <= tally.reasons.keys()
