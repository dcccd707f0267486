import json
import math
from pathlib import Path

import numpy as np
import pytest

from iiot_platform.client import Client, UnknownNameError
from iiot_platform.config.plant import Line, Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of, hour_start_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.report.content import Chart, LineReport, Timeline
from iiot_platform.report.page import render
from iiot_platform.report.reading import read_report
from tests.servers.capture_log import write_segments

START_MS = 1_795_336_200_000
COUNT = 300
SPIKE = 250


def record(topic: str, payload: dict[str, object], ts_ms: int) -> Record:
    text = json.dumps({**payload, "TimeStamp": ts_ms})
    return Record("mqtt", f"line1/{topic}", text.encode(), (ts_ms + 40) * 1_000)


def records() -> list[Record]:
    """Five minutes of a signal with a spike, of a vibration sensor, a valve and a state."""
    found = []
    for i in range(COUNT):
        ts = START_MS + 1_000 * i
        value = 500.0 if i == SPIKE else 160 + math.sin(i)
        found.append(record("press/<b>oil", {"SensorName": "oil", "SensorValue": value}, ts))
        axes = {f"VibAccelTotRms{a}": 0.4 + 0.01 * math.sin(i * k) for k, a in enumerate("XYZ", 1)}
        found.append(record("press/bearing", {"SensorName": "bearing", **axes}, ts + 1))
        valve = {"ValveName": "clamp", "TimeType": "ExtendTime", "TimeValue": 200 + i % 5}
        found.append(record("press/clamp", valve, ts + 2))
        state = {"StateName": "mode", "StateValue": 1 if i < 200 else 2}
        found.append(record("press/mode", state, ts + 3))
    return found


def computed(home: Home, given: list[Record]) -> Client:
    write_segments(home, "line1", given)
    engine = Engine(home, Plant(lines=(Line(name="line1"),)), clock=lambda: START_MS)
    while engine.run_batch("line1", run_id="run-1"):
        pass
    engine.close()
    return Client(home)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return computed(Home(tmp_path_factory.mktemp("plant")), records())


def charts(line: LineReport, title: str) -> list[Chart]:
    (section,) = (section for section in line.sections if section.title == title)
    return [c for group in section.groups for c in group.charts if isinstance(c, Chart)]


def test_the_spike_is_the_one_anomaly_of_its_series(client: Client) -> None:
    (line,) = read_report(client, last_s=3_600).lines
    (chart,) = charts(line, "Signals")

    assert chart.figures is not None
    assert chart.anomalies is not None
    assert (chart.figures.rows, chart.figures.warming, chart.figures.anomalies) == (COUNT, 200, 1)
    assert chart.anomalies.ts.tolist() == [START_MS + 1_000 * SPIKE]
    assert chart.anomalies.values.tolist() == [500.0]
    assert len(chart.band.ts) == COUNT - 200
    window = np.array([160 + math.sin(i) for i in range(COUNT - 1) if i != SPIKE])[-200:]
    reach = 3.5 * window.std(ddof=1)
    assert chart.figures.lower == pytest.approx(window.mean() - reach)
    assert chart.figures.upper == pytest.approx(window.mean() + reach)


def test_every_kind_has_its_section(client: Client) -> None:
    (line,) = read_report(client, last_s=3_600).lines

    assert [section.title for section in line.sections] == [
        "Overview",
        "States",
        "Signals",
        "Vibration",
        "Air valves",
    ]
    titles = [chart.title for chart in charts(line, "Vibration")]
    assert titles == ["Total", "x axis", "y axis", "z axis"]
    timeline, ended = line.sections[1].groups[0].charts
    assert isinstance(timeline, Timeline)
    assert isinstance(ended, Chart)
    assert [curve.values.tolist() for curve in ended.curves] == [[200.0]]
    ((name, held),) = timeline.rows
    assert name == "press / mode"
    assert [(s.start_ms, s.value) for s in held] == [
        (START_MS + 3, 1),
        (START_MS + 200_003, 2),
    ]
    assert line.overview.readings == 4 * COUNT
    assert line.overview.newest_ms == START_MS + 1_000 * (COUNT - 1) + 3
    assert line.overview.lateness_max_s == pytest.approx(0.04)


def test_the_newest_anomalies_are_listed_with_their_run(client: Client) -> None:
    (line,) = read_report(client, last_s=3_600).lines
    (one,) = line.flagged

    assert (one.ts_ms, one.value, one.run) == (START_MS + 1_000 * SPIKE, 500.0, "run-1")
    assert (one.table, one.machine, one.series) == ("signal_anomalies", "press", "<b>oil")
    assert (one.quantity, one.status) == ("value", "ok")
    assert one.z_score > 100


def test_gaps_are_shown_with_the_share_that_they_leave(tmp_path: Path) -> None:
    told = {"begin_ms": START_MS + 60_000, "end_ms": START_MS + 90_000, "reason": "cut"}
    given = records()
    given.append(
        Record("mqtt", "$gap/mqtt", json.dumps(told).encode(), (START_MS + 90_000) * 1_000)
    )
    report = read_report(computed(Home(tmp_path), given), last_s=3_600)
    (line,) = report.lines

    assert line.overview.covered_share == pytest.approx(1 - 30 / 300, abs=1e-3)
    found = {chart.title: chart for chart in charts(line, "Overview")}
    assert found["Gaps: time without data"].curves[0].values.max() == 30.0
    shares = found["Coverage of hours"].curves[0].values
    passed_ms = report.end_ms - hour_start_ms(hour_of(START_MS))
    assert shares == pytest.approx([1 - 30_000 / passed_ms] * 2)
    (later,) = read_report(computed(Home(tmp_path), []), last_s=60).lines
    assert later.overview.covered_share == 1.0
    assert charts(later, "Overview")[-1].curves[0].values == pytest.approx(shares)
    (event,) = line.events
    assert (event.at_ms, event.until_ms, event.kind) == (
        START_MS + 60_000,
        START_MS + 90_000,
        "gap",
    )
    assert event.text == "mqtt: cut, 30.0 s"


def test_without_a_gap_none_is_shown(client: Client) -> None:
    (line,) = read_report(client, last_s=3_600).lines

    assert line.overview.covered_share == 1.0
    assert line.events == ()
    titles = {chart.title for chart in charts(line, "Overview")}
    assert not titles & {"Gaps: time without data", "Coverage of hours"}


def test_lineage_names_run_and_settings(client: Client) -> None:
    (line,) = read_report(client, last_s=3_600).lines
    (signals,) = (one for one in line.lineage if one.table == "signal_anomalies")

    assert (signals.rows, signals.runs, signals.newest_run) == (COUNT, 1, "run-1")
    assert len(signals.settings) == 1


def test_the_period_ends_with_the_newest_row_and_begins_with_the_oldest(client: Client) -> None:
    whole, short = read_report(client, last_s=3_600), read_report(client, last_s=60)

    assert whole.start_ms == START_MS
    assert short.end_ms - short.start_ms == 60_000
    assert charts(short.lines[0], "Signals")[0].curves[0].ts[0] >= short.start_ms


def test_the_page_of_real_rows_escapes_their_names(client: Client) -> None:
    page = render(read_report(client, last_s=3_600))

    assert "&lt;b&gt;oil" in page
    assert "<b>oil" not in page
    assert "1 anomaly" in page


def test_the_numbers_are_valid_json(client: Client) -> None:
    found = read_report(client, last_s=3_600).as_json()
    found = json.loads(json.dumps(found, allow_nan=False))

    (line,) = found["lines"]
    assert sorted(s["anomalies"] for s in line["series"]) == [0, 0, 0, 0, 0, 1]
    assert len(line["series"]) == 6


def test_one_reading_of_one_series_is_enough(tmp_path: Path) -> None:
    given = [record("press/oil", {"SensorName": "oil", "SensorValue": 1.5}, START_MS)]
    report = read_report(computed(Home(tmp_path), given), last_s=3_600)

    (chart,) = charts(report.lines[0], "Signals")
    assert chart.figures is not None
    assert chart.figures.value == 1.5
    assert "learning" in render(report)


def test_a_line_of_which_nothing_could_be_decoded_has_a_page(tmp_path: Path) -> None:
    given = [Record("mqtt", "line1/press/oil", b"not json", START_MS * 1_000)]
    report = read_report(computed(Home(tmp_path), given), last_s=3_600)

    assert report.lines[0].overview.quarantined == 1
    (chart,) = charts(report.lines[0], "Data quality")
    assert chart.curves[0].values.tolist() == [1.0]
    assert report.lines[0].overview.lateness_max_s is None
    assert "line1" in render(report)


def test_a_line_that_is_not_there_is_told(client: Client) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'line1'"):
        read_report(client, lines=["line2"], last_s=60)
