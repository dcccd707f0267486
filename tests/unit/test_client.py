import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from iiot_platform.client import Client, UnknownNameError
from iiot_platform.config.plant import Line, Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.errors import AnalysisError, StorageError
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments

START_MS = 1_795_336_200_000
"""Half past an hour: 2026-11-22 08:30 UTC."""


def signal(ts_ms: int, value: float, device: str = "oil_pressure") -> Record:
    payload = f'{{"SensorName":"{device}","SensorValue":{value},"TimeStamp":{ts_ms}}}'
    return Record("mqtt", f"line1/press/{device}", payload.encode(), (ts_ms + 40) * 1_000)


def state(ts_ms: int, value: int) -> Record:
    payload = f'{{"StateName":"mode","StateValue":{value},"TimeStamp":{ts_ms}}}'
    return Record("mqtt", "line1/press/mode", payload.encode(), (ts_ms + 40) * 1_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Four hours of one signal per minute, another one once, and states; read only."""
    home = Home(tmp_path_factory.mktemp("home"))
    records = [signal(START_MS + 60_000 * i, 160 + i % 7) for i in range(240)]
    records += [signal(START_MS, 1.5, "flow"), state(START_MS, 1), state(START_MS + 5_000, 2)]
    write_segments(home, "line1", records)
    engine = Engine(home, Plant(lines=(Line(name="line1"),)), clock=lambda: START_MS)
    while engine.run_batch("line1", run_id="run"):
        pass
    engine.close()
    return home


def test_rows_come_in_order_with_their_types(home: Home) -> None:
    frame = Client(home).table("line1", "signals")

    assert list(frame.columns) == schema.SIGNALS.arrow.names
    assert len(frame) == 241
    assert str(frame["ts"].dtype) == "datetime64[ms, UTC]"
    assert frame["ts"].is_monotonic_increasing
    assert frame["ts"].iloc[0] == pd.Timestamp(START_MS, unit="ms", tz="UTC")
    assert frame["value"].dtype == "float64"
    assert frame["sensor_name"].dtype == "str"


def test_coverage_leaves_out_gaps_that_were_not_filled(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    half_past = '{"begin_ms": %d, "end_ms": %d, "reason": "cut"%s}'
    records = [signal(START_MS + 600_000 * i, 1.5) for i in range(4)]
    for begin, end, more in (
        (0, 900_000, ""),
        (900_000, 1_200_000, ""),
        (900_000, 1_200_000, ', "filled": 3, "complete": true'),
    ):
        payload = half_past % (START_MS + begin, START_MS + end, more)
        at_us = 1_000 * (START_MS + 1_800_000)
        records.append(Record("plc", "$gap/plc", payload.encode(), at_us))
    write_segments(home, "line1", records)
    engine = Engine(home, Plant(lines=(Line(name="line1"),)))
    while engine.run_batch("line1", run_id="run"):
        pass
    engine.close()

    frame = Client(home).coverage("line1")

    assert frame["covered_share"].tolist() == [0.75, 1.0]


def test_whole_numbers_that_may_be_missing_stay_whole(home: Home) -> None:
    frame = Client(home).table("line1", "readings")

    assert frame["state"].dtype == "Int64"
    assert frame["pulse"].dtype == "boolean"
    assert frame["state"].isna().sum() == 241
    assert frame["state"].dropna().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        ("2026-11-22 08:31", "2026-11-22 08:33", 2),
        ("2026-11-22 09:31+01:00", "2026-11-22 08:33", 2),
        (datetime(2026, 11, 22, 8, 31, tzinfo=UTC), None, 239),
        (None, "2026-11-22 08:30", 0),
        ("2026-11-22 09:59", "2026-11-22 10:01", 2),
        ("2026-11-22 10:00", "2026-11-22 09:00", 0),
    ],
)
def test_times_are_half_open_and_utc_without_a_zone(
    home: Home, start: str | datetime | None, end: str | None, rows: int
) -> None:
    frame = Client(home).table("line1", "signals", start=start, end=end)

    assert len(frame) == rows
    assert list(frame.columns) == schema.SIGNALS.arrow.names
    assert str(frame["ts"].dtype) == "datetime64[ms, UTC]"


def test_tags_take_one_value_or_several(home: Home) -> None:
    client = Client(home)

    assert client.table("line1", "signals", sensor_name="flow")["value"].tolist() == [1.5]
    assert len(client.table("line1", "signals", sensor_name=["flow", "oil_pressure"])) == 241
    assert client.table("line1", "signals", sensor_name="it's; not there").empty
    assert client.table("line1", "signals", sensor_name=[]).empty


@pytest.mark.parametrize("last", [1, 45, 200, 1_000])
def test_the_newest_rows_are_the_end_of_all(home: Home, last: int) -> None:
    client = Client(home)

    newest = client.table("line1", "signals", last=last)
    everything = client.table("line1", "signals")

    pd.testing.assert_frame_equal(newest, everything.tail(last).reset_index(drop=True))


def test_names_that_are_wrong_are_told_with_the_nearest(home: Home) -> None:
    client = Client(home)

    with pytest.raises(UnknownNameError, match=r"no line is called 'line2'; .*'line1'"):
        client.table("line2", "signals")
    with pytest.raises(UnknownNameError, match="did you mean 'signals'"):
        client.table("line1", "signal")
    with pytest.raises(UnknownNameError, match="did you mean 'sensor_name'"):
        client.table("line1", "signals", sensor="flow")
    with pytest.raises(AnalysisError, match="'yesterdayish' is no time"):
        client.table("line1", "signals", start="yesterdayish")


def test_a_home_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no ledger"):
        Client(tmp_path)
    assert not list(tmp_path.iterdir())


def test_tables_are_listed_with_rows_and_times(home: Home) -> None:
    listed = Client(home).tables("line1").set_index("table")

    assert listed.loc["signals", "rows"] == 241
    assert listed.loc["states", "last"] == pd.Timestamp(START_MS + 5_000, unit="ms", tz="UTC")
    assert Client(home).lines() == ["line1"]


def test_a_file_that_went_is_looked_for_once_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(home)
    real = client._ledger.files_between
    listings = []

    def stale(line: str, table: str, start: int, end: int) -> list[str]:
        listings.append(table)
        current: list[str] = real(line, table, start, end)
        return ["line1/signals/gone.parquet"] if len(listings) == 1 else current

    monkeypatch.setattr(client._ledger, "files_between", stale)
    assert len(client.table("line1", "signals")) == 241
    assert len(listings) == 2

    monkeypatch.setattr(client._ledger, "files_between", lambda *_: ["gone.parquet"])
    with pytest.raises(StorageError, match="table 'signals' of 'line1' can not be read"):
        client.table("line1", "signals")


def test_files_that_no_longer_count_are_not_read(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path, dirs_exist_ok=True)
    home = Home(tmp_path)
    client = Client(home)
    folder = home.tables / "line1" / "signals"
    stray = next(folder.rglob("*.parquet"))
    stray.with_name("stray.parquet").write_bytes(stray.read_bytes())

    assert len(client.table("line1", "signals")) == 241


@pytest.mark.parametrize("name", schema.TABLES)
def test_every_table_can_be_asked_for(home: Home, name: str) -> None:
    frame = Client(home).table("line1", name)

    expected = pa.Table.from_pylist([], schema.TABLES[name].arrow)
    assert list(frame.columns) == expected.column_names


def test_intervals_are_aggregated_by_series(home: Home) -> None:
    client = Client(home)
    found = client.intervals(
        "line1",
        "signals",
        every_ms=120_000,
        start=pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        end=pd.Timestamp(START_MS + 300_000, unit="ms", tz="UTC"),
        newest=("value", "run_id"),
    )
    oil = found[found["sensor_name"] == "oil_pressure"]
    assert list(oil["at_ms"] - START_MS) == [0, 120_000, 240_000]
    assert list(oil["newest_ms"] - START_MS) == [60_000, 180_000, 240_000]
    assert list(oil["value"]) == [161, 163, 164]
    assert set(oil["machine_name"]) == {"press"}
    assert list(found[found["sensor_name"] == "flow"]["value"]) == [1.5]


def test_intervals_add_up_and_tell_apart_what_is_asked(home: Home) -> None:
    client = Client(home)
    hour = {"every_ms": 3_600_000, "start": "2026-11-22 09:00", "end": "2026-11-22 11:00"}
    found = client.intervals(
        "line1",
        "activity",
        by=("series",),
        total=("readings",),
        highest=("lateness_max_ms",),
        **hour,
    )
    assert list(found["readings"]) == [60.0, 60.0]
    assert list(found["lateness_max_ms"]) == [40, 40]
    none = client.intervals("line1", "gaps", by=(), total=("duration_s",), **hour)
    assert (list(none.columns), len(none)) == (["at_ms", "newest_ms", "duration_s"], 0)
    with pytest.raises(UnknownNameError, match="no column of 'signals' is called 'valeu'"):
        client.intervals("line1", "signals", newest=("valeu",), **hour)
