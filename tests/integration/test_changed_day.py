"""Settings that change for a day: tried, promoted, computed, and the database follows."""

import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import from_ms, hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration.delivery import delivery_to
from tests.reference.sink_rows import Rows, compared
from tests.servers import influx
from tests.servers.capture_log import write_segments
from tests.servers.databases import InfluxDatabase
from tests.servers.influx import Influx
from tests.servers.streams import BASE_MS, HOUR_MS, signal

HOURS = 24
SIGNALS = 20
STEP_MS = 120_000
SPIKE_EVERY = 30
DELAYED = "s00"
DELAYED_HOUR = hour_of(BASE_MS) + 10
DELAY_MS = 2 * HOUR_MS
DRAIN_S = 60.0
PER_HOUR = HOUR_MS // STEP_MS


@dataclass
class Installation:
    """A line's day on disk, as the command line sees it, and a database behind it."""

    folder: Path
    server: Influx
    line: str

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def environ(self) -> dict[str, str]:
        return {
            "IIOT_HOME": str(self.home.root),
            "IIOT_PLANT": str(self.folder / "plant.yaml"),
            "INFLUX_URL": self.server.url,
            "INFLUX_TOKEN": self.server.token,
            "INFLUX_ORG": self.server.org,
            "INFLUX_BUCKET": self.server.bucket,
        }

    def plant(self, name: str, *, low: float, high: float, max_lateness_s: int = 86_400) -> Path:
        """A plant file whose first ten signals have one threshold and the others another."""
        path = self.folder / name
        path.write_text(
            f"lines: [{self.line}]\n"
            f"max_lateness_s: {max_lateness_s}\n"
            "batches: {row_cap: 3000}\n"
            "defaults:\n"
            f"  signal: {{window: 30, rate_window: 20, refractory: 0, threshold: {low}}}\n"
            "series:\n"
            f'  - match: "{self.line}/press/s1*"\n'
            f"    detector: {{threshold: {high}}}\n",
            encoding="utf-8",
        )
        return path

    def call(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
        """What a command answers in JSON."""
        with pytest.raises(SystemExit) as ended:
            main((*arguments, "--json"), self.environ)
        assert not ended.value.code
        return json.loads(capsys.readouterr().out)

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        plant = load_plant(self.folder / "plant.yaml", self.environ)
        with contextlib.closing(Engine(self.home, plant, sinks=("influxdb",))) as engine:
            yield engine

    def deliver(self) -> int:
        """Hands everything that is pending to the database; returns the points."""
        with self.engine() as engine:
            report = delivery_to("influxdb", self.server.settings)(engine).drain(self.line, DRAIN_S)
        assert (report.remaining, report.rejected, report.error) == (0, 0, None)
        return report.points

    def follows(self) -> dict[str, Rows]:
        """The tables, after a comparison of every measured one with the database."""
        with self.engine() as engine:
            return compared(InfluxDatabase(self.server), engine, self.line)


def anomalies(rows: Rows) -> dict[str, set[object]]:
    """By signal, the times of its anomalies."""
    found: dict[str, set[object]] = {f"s{series:02}": set() for series in range(SIGNALS)}
    for row in rows.values():
        if row["anomaly"] == 1:
            found[str(row["sensor_name"])].add(row["ts"])
    return found


def day(line: str) -> list[Record]:
    """A day of twenty signals as it arrives; one signal is two hours late for one hour."""
    noise = random.Random(11)
    records = []
    for step in range(HOURS * PER_HOUR):
        for series in range(SIGNALS):
            name, ts = f"s{series:02}", BASE_MS + step * STEP_MS + series * 11
            spike = noise.uniform(1.5, 4) if noise.randrange(SPIKE_EVERY) == 0 else 0.0
            delayed = name == DELAYED and hour_of(ts) == DELAYED_HOUR
            received = ts + (DELAY_MS if delayed else 20)
            value = round(noise.gauss(20, 0.5) + spike, 3)
            records.append(signal(name, ts, value, line=line, received=received))
    return sorted(records, key=lambda record: record.received_ts)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    influx.require()
    (tmp_path / "influx").mkdir()
    with influx.server(tmp_path / "influx") as server:
        found = Installation(tmp_path, server, f"line {uuid.uuid4().hex}")
        write_segments(found.home, found.line, day(found.line), rows=1_000)
        found.plant("plant.yaml", low=5, high=5)
        yield found


def test_the_database_follows_a_changed_day_row_by_row(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    line = installation.line
    span = ("--line", line, "--from", f"{from_ms(BASE_MS):%Y-%m-%dT%H:%MZ}")
    installation.call(capsys, "batch")
    installation.call(capsys, "rerun", *span)  # the delayed hour
    installation.deliver()
    before = anomalies(installation.follows()["signal_anomalies"])

    candidate = installation.plant("candidate.yaml", low=3.5, high=8)
    tried = installation.call(capsys, "replay", "--plant", str(candidate), *span)
    assert installation.deliver() == 0, "a replay has changed something"
    promoted = installation.call(capsys, "replay", "--plant", str(candidate), *span, "--promote")[
        "promoted"
    ]
    assert (promoted["hours"], promoted["hours_to_follow"]) == (HOURS, 0)
    assert installation.deliver() >= SIGNALS * HOURS * PER_HOUR
    tables = installation.follows()
    after = anomalies(tables["signal_anomalies"])
    told = {found["name"]: (found["added"], found["removed"]) for found in tried["series"]}
    assert told == {
        name: (len(after[name] - before[name]), len(before[name] - after[name])) for name in after
    }
    assert all(told[name][name.startswith("s1")] > 0 for name in told), told
    current = load_plant(candidate, {}).line_settings(line).version
    for rows in tables.values():
        assert {row["config_version"] for row in rows.values()} <= {current}

    # rows that vanish: what was two hours late is no longer taken
    installation.plant("plant.yaml", low=3.5, high=8, max_lateness_s=3_600)
    (done,) = installation.call(capsys, "rerun", *span, "--outdated")["lines"]
    assert done["hours"] == HOURS
    installation.deliver()
    shrunk = installation.follows()
    for name in ("signals", "signal_anomalies"):
        gone = Counter(
            (row["sensor_name"], hour_of(int(str(row["ts"]))))
            for key, row in tables[name].items()
            if key not in shrunk[name]
        )
        assert gone == {(DELAYED, DELAYED_HOUR): PER_HOUR}
    assert installation.deliver() == 0
