"""The simulator's plant with its labelled faults, computed: what a database is filled from.

In simulated time, as fast as it goes: messages of the simulator become a capture log, live batches
take it, a setting changes, an hour is settled and computed again for its late rows.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S, hour_start_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from simulator.plant import Message, SimulatedPlant
from simulator.scenario_file import parse_scenario
from tests.servers.capture_log import write_segments

HOUR: Final = 498_705
START_MS: Final = hour_start_ms(HOUR)
END_MS: Final = START_MS + 90 * 60 * MS_PER_S
MACHINE: Final = "press.1"
LATE: Final = "ram_position"
"""The device whose messages of a minute come more than an hour late."""
RUNS: Final = {
    "live": "0d4f3e0a-5a4e-4d3c-9a50-3a53fc4b6a01",
    "changed": "0d4f3e0a-5a4e-4d3c-9a50-3a53fc4b6a02",
    "settle": "0d4f3e0a-5a4e-4d3c-9a50-3a53fc4b6a03",
    "rerun": "0d4f3e0a-5a4e-4d3c-9a50-3a53fc4b6a04",
}
"""Ids of the runs, by what they did."""
_SCENARIO: Final = Path(__file__).parents[1] / "data/simulated_plant/scenario.yaml"
_NAMES: Final = ("line 1 (test)", "line2")
_ON_THE_WAY_MS: Final = 20
_AWAY_S: Final = (1_000, 1_060)
_LATE_S: Final = (600, 660)
_LATE_ARRIVAL_S: Final = 4_500
_RUBBISH_EVERY: Final = 1_500
_RUBBISH: Final = (b"{not json", b'{"SensorName": "x", "SensorValue": NaN}', b"[1, 2]")
_SEGMENT_ROWS: Final = 2_000
_KINDS: Final = ("signal", "vibration", "valve", "electrical")


@dataclass(frozen=True)
class SimulatedTables:
    """What was computed.

    Attributes:
        lines: names of the lines; the first has every kind.
        home: where they are.
        engine: holds the ledger, whose outbox has what a database lacks.
    """

    lines: tuple[str, ...]
    home: Home
    engine: Engine

    @property
    def line(self) -> str:
        return self.lines[0]

    def rows(self, table: schema.Table, line: str | None = None) -> pa.Table:
        """All current rows of a table, in the order of their times."""
        name = self.line if line is None else line
        found = [
            self.engine.store.read(table, [f.path for f in files])
            for hour in sorted(self.engine.ledger.hours(name))
            if (files := self.engine.ledger.files(name, table.name, hour))
        ]
        return pa.concat_tables(found).sort_by("ts")


@contextmanager
def simulated_tables(
    folder: Path, *, suffix: str = "", seconds: int = (END_MS - START_MS) // MS_PER_S
) -> Iterator[SimulatedTables]:
    """The plant, computed below a folder; a suffix makes its lines' names its own."""
    lines = tuple(f"{name}{suffix}" for name in _NAMES)
    home = Home(folder)
    clock = lambda: END_MS  # noqa: E731  # the end of what is simulated is now
    text = _SCENARIO.read_text(encoding="utf-8")
    for name, own in zip(_NAMES, lines, strict=True):
        text = text.replace(name, own)
    played = SimulatedPlant(parse_scenario(text, source=_SCENARIO.name), anchor_ms=START_MS)
    messages = played.chunk(START_MS, START_MS + seconds * MS_PER_S).messages
    cut = (START_MS + MS_PER_HOUR) * 1_000
    captured = {line: _captured(messages, line) for line in lines}
    for threshold, run, part in (
        (4.0, RUNS["live"], lambda record: record.received_ts < cut),
        (3.5, RUNS["changed"], lambda record: record.received_ts >= cut),
    ):
        for line, records in captured.items():
            write_segments(home, line, [r for r in records if part(r)], rows=_SEGMENT_ROWS)
        engine = Engine(home, _plant(lines, threshold), sinks=("influxdb",), clock=clock)
        for line in lines:
            _take(engine, line, run)
        if run == RUNS["live"]:
            engine.close()
    engine.rerun(lines[1], HOUR, run_id=RUNS["settle"], kind="settle")
    for line in lines:
        for hour in engine.dirty_hours(line):
            engine.rerun(line, hour, run_id=RUNS["rerun"])
    try:
        yield SimulatedTables(lines, home, engine)
    finally:
        engine.close()


def _take(engine: Engine, line: str, run: str) -> None:
    while engine.run_batch(line, run_id=run, row_cap=5_000) is not None:
        pass


def _plant(lines: Sequence[str], threshold: float) -> Plant:
    detector = {"window": 20, "rate_window": 20, "relearn_after": 8, "threshold": threshold}
    return Plant.model_validate({"lines": list(lines), "defaults": dict.fromkeys(_KINDS, detector)})


def _captured(messages: Sequence[Message], line: str) -> list[Record]:
    """A line's messages as they arrive: some late, some lost in a gap, rubbish among them."""
    away = tuple(START_MS + at * MS_PER_S for at in _AWAY_S)
    late = tuple(START_MS + at * MS_PER_S for at in _LATE_S)
    found = []
    for number, message in enumerate(m for m in messages if m.line == line):
        if away[0] <= message.due_ms < away[1]:
            continue
        at = message.due_ms + _ON_THE_WAY_MS
        if message.topic.endswith(LATE) and late[0] <= message.due_ms < late[1]:
            at += _LATE_ARRIVAL_S * MS_PER_S
        found.append(_record(message.topic, message.payload, at))
        if number % _RUBBISH_EVERY == 0:
            rubbish = _RUBBISH[number // _RUBBISH_EVERY % len(_RUBBISH)]
            found.append(_record(message.topic, rubbish, at))
    told = {"begin_ms": away[0], "end_ms": away[1], "reason": "the broker was away"}
    found.append(_record(f"{GAP_TOPIC}mqtt", json.dumps(told).encode(), away[1]))
    return sorted(found, key=lambda record: record.received_ts)


def _record(topic: str, payload: bytes, at_ms: int) -> Record:
    return Record("mqtt", topic, payload, at_ms * 1_000)
