"""The live page of the simulator's plant: beside Grafana's boards, and in a real browser."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any, Final

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.report.page import GRAFANA_ALONE
from iiot_platform.report.server import LivePage, ReportServer
from tests.reference.grafana_queries import data_panels
from tests.servers.capture_log import write_segments
from tests.servers.chromium import Tab, browser
from tests.servers.faulty_line import status_file
from tests.servers.simulated_plant import END_MS, START_MS, simulated_tables
from tests.servers.streams import BASE_MS, signal
from tools.dashboards.__main__ import rendered

LONG: Final = "_" + "x" * 70
"""Lines whose names have no place to break at."""
PHONE, DESKTOP = 390, 1440
HAPPENED: Final = "<h3>Settings, reruns and gaps</h3>"
LATENESS: Final = "<b>Lateness: receive time minus event time</b>"
CYCLE_RATIO: Final = r'Current integral.*?aria-label="anomaly ratio"'
COUNTED: Final = r"\d+ anomalies</span> in"
SHIFTED: Final = r'class="shift".*off reference'
NEWEST: Final = "<h3>Newest anomalies, at most 20</h3>"
LIMITS: Final = r"limits [-\d.]+ to [-\d.]+"
LINEAGE: Final = "<h2>Lineage</h2>"
BESIDE: Final[dict[str, dict[str, str]]] = {
    "plant": {
        "Freshness: newest interval of each line": "<dt>newest reading</dt>",
        "Largest lateness in the newest interval": "<dt>lateness, largest</dt>",
        "Newest interval of each line": "<dt>running</dt>",
        "Running share": "<b>Running share, and known share of the time</b>",
        "Anomalies": "<b>Anomalies per 10 s</b>",
        "Largest lateness": LATENESS,
        "Mean lateness": LATENESS,
        "Readings per interval of 10 s": "<b>Readings per 10 s</b>",
        "Series with readings": "<b>Series with readings</b>",
        "Messages set aside": "<b>Messages set aside per 10 s</b>",
        "Settings, reruns and gaps: the newest events": HAPPENED,
    },
    "line": {
        "States of $line": "<b>States</b>",
        "Signals": "<h3>Signals</h3>",
        "Signal: anomalies per series": COUNTED,
        "Vibration: anomalies per series": COUNTED,
        "Air valves: anomalies per series": COUNTED,
        "Longest state that ended": "<b>press.1: length of states that ended</b>",
        "Current integral per cycle": "<b>Current integral, phase 1</b>",
        "Newest change of each state": LINEAGE,
        "Newest anomalies (at most 200)": NEWEST,
        "Settings, reruns and gaps: the newest events": HAPPENED,
    },
    "signals": {
        "Value, limits and anomalies": LIMITS,
        "Anomaly ratio": 'aria-label="anomaly ratio"',
        "Level shifts": SHIFTED,
        "Newest row of each sensor": LINEAGE,
        "Newest anomalies (at most 200)": NEWEST,
    },
    "vibration": {
        "Total: RMS acceleration and limits": "<b>Total</b>",
        "x axis": "<b>x axis</b>",
        "y axis": "<b>y axis</b>",
        "z axis": "<b>z axis</b>",
        "Anomaly ratio": 'aria-label="anomaly ratio"',
        "Level shifts": SHIFTED,
        "Sensor temperature": "<b>Sensor temperature</b>",
        "Newest row of each sensor": LINEAGE,
        "Newest anomalies (at most 200)": NEWEST,
    },
    "valves": {
        "Anomaly ratio per operation": 'aria-label="anomaly ratio"',
        "Anomalies per operation": COUNTED,
        "$operation": "<b>ExtendTime</b>",
        "Newest row of each operation": LINEAGE,
        "Newest anomalies (at most 200)": NEWEST,
    },
    "electrical": {
        **{
            f"Current-time integral of the cycle, phase {n} (A·s)": (
                f"<b>Current integral, phase {n}</b>"
            )
            for n in (1, 2, 3)
        },
        **{
            f"Inrush current of the cycle, phase {n} (A)": f"<b>Inrush current, phase {n}</b>"
            for n in (1, 2, 3)
        },
        "Anomaly ratio: integral": CYCLE_RATIO,
        "Anomaly ratio: inrush current": CYCLE_RATIO,
        "Asymmetry and unbalance": "<b>Asymmetry and unbalance of the currents</b>",
        "Maximum at the start": "<b>Maximum at the start</b>",
        "Length and longest gap": "<b>Length of the cycle and longest gap</b>",
        "Currents": "<b>Currents</b>",
        "Active power": "<b>Active power</b>",
        "Total powers": "<b>Total powers</b>",
        "Voltages": "<b>Voltages</b>",
        "Power factor": "<b>Power factor</b>",
        "Current distortion (THD)": "<b>Current distortion (THD)</b>",
        "Newest cycle of each device": LINEAGE,
    },
    "quality": {
        "By line and reason": "<b>not_json per 10 s, 10 in all</b>",
        "By line": "<h3>Data quality</h3>",
        "Readings per interval of 10 s": "<b>Readings per 10 s</b>",
        "Largest lateness": LATENESS,
        "Known share of the states' time": "<b>Running share, and known share of the time</b>",
        "Gaps: time without data": "<b>Gaps: time without data</b>",
        "Coverage of hours": "<b>Coverage of hours</b>",
        "Late rows": "<b>late per 10 s, 30 in all</b>",
        "Coverage of machine cycles": "<b>Coverage of the cycle</b>",
        "Sum in the chosen time": r"per 10 s, \d+ in all",
        "Newest interval of each reason and its run": LINEAGE,
        "Settings, reruns and gaps: the newest events": HAPPENED,
    },
    "platform": {
        "Messages captured": ">messages/s<",
        "Commits and seals": r"<dt>commits</dt>.*<dt>seals</dt>",
        "Commit and seal": r"<dt>commit, mean</dt>.*<dt>seal, mean</dt>",
        "Not yet safe, not yet sealed": r"<dt>not yet sealed</dt>.*>unacknowledged<",
        "Sources": "<h3>Sources</h3>",
        "Dropped, and what could not be stored": r"<dt>sent twice, dropped</dt>.*>QoS 0 dropped<",
        "Lag in rows": ">lag, rows<",
        "Lag": ">lag<",
        "Live batches": ">batch p50<",
        "Batches": ">live batches<",
        "Rows that stand": "<h3>Rows that stand</h3>",
        "Anomalies": ">anomalies<",
        "Set aside": ">set aside<",
        "Late and repeated": ">late<.*>duplicates<",
        "Hours to compute": ">dirty hours<",
        "Database": ">pending<.*>refused<.*>failures<",
        "Free disk space": "<dt>free disk</dt>",
    },
}
"""What stands on the page for each panel of Grafana's, as a regular expression."""
SAID: Final[dict[str, Any]] = {
    "hot_rows": 4_321,
    "commits": {"count": 55_555, "mean_s": 0.0125, "longest_s": 0.25},
    "seals": {"count": 6_666, "mean_s": 0.0525, "longest_s": 0.5},
    "disk": {"level": "ok", "message": "", "free": 5 * 10**10, "total": 10**11},
    "sources": {
        "mqtt": {"state": "connected", "reason": "", "waiting": 7, "connects": 1, "qos0_dropped": 0}
    },
}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with simulated_tables(tmp_path_factory.mktemp("plant"), suffix=LONG) as found:
        status_file(found.home, now_ms(), **SAID)
        yield found.home


@pytest.fixture(scope="module")
def live(plant: Home) -> Iterator[LivePage]:
    """The whole of the plant, made once."""
    last_s = (END_MS - START_MS) / 1_000
    with closing(LivePage(plant, last_s=last_s, refresh_s=3_600.0)) as made:
        yield made


@pytest.fixture(scope="module")
def page(live: LivePage) -> str:
    return live.content().decode()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("board", sorted(name.removesuffix(".json") for name in rendered()))
def test_every_panel_of_grafana_stands_on_the_page_or_is_said_to_be_grafanas_alone(
    page: str, board: str
) -> None:
    titles = {panel["title"] for panel in data_panels(json.loads(rendered()[f"{board}.json"]))}
    alone = set(GRAFANA_ALONE) if board == "platform" else set()
    assert titles == BESIDE[board].keys() | alone
    text = unescape(page)
    for title, found in BESIDE[board].items():
        assert re.search(found.replace("(THD)", r"\(THD\)"), text, re.DOTALL), title
    notes = text.partition("<footer>")[2]
    assert all(title in notes for title in alone)


def test_no_chart_of_the_page_is_empty(page: str) -> None:
    charts = re.findall(r'<figure class="chart[^>]*>.*?</figure>', page, re.DOTALL)
    assert len(charts) > 60
    for chart in charts:
        assert re.search(r'<path class="c0[^"]*" d="M|<rect class="s', chart), chart[:200]


TOO_WIDE: Final = """
  Array.from(document.querySelectorAll("body *"))
    .filter((one) => !(one instanceof SVGElement) && !one.closest(".scroll > *"))
    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`)
"""


def columns(tab: Tab, of: str) -> int:
    return len(str(tab.value(f"getComputedStyle({of}).gridTemplateColumns")).split())


@pytest.mark.parametrize(("width", "is_phone"), [(PHONE, True), (DESKTOP, False)])
def test_a_browser_lays_it_out_for_its_width(
    live: LivePage, tab: Tab, *, width: int, is_phone: bool
) -> None:
    with ReportServer(live, port=0) as server:
        tab.open(server.url, width=width, phone=is_phone)
        assert tab.value("document.documentElement.clientWidth") == width
        assert tab.value("document.documentElement.scrollWidth") == width
        assert tab.value(TOO_WIDE) == []
        tiles = columns(tab, "document.querySelector('.tiles')")
        charts = columns(tab, "document.querySelector('.charts')")
        hidden = tab.value(
            "getComputedStyle(document.querySelector('.times time:nth-child(2)')).display"
        )
        assert (tiles == 2, charts, hidden) == (
            is_phone,
            *((1, "none") if is_phone else (3, "block")),
        )
        assert tab.value("getComputedStyle(document.querySelector('.chart')).borderRadius") == "8px"
        assert tab.value("document.getElementById('zone').textContent") == "(UTC)"


def test_a_browser_shows_what_is_new_and_keeps_what_was_folded(tmp_path: Path, tab: Tab) -> None:
    home = Home(tmp_path)
    plant = Plant.model_validate({"lines": ["line1"]})
    shown = "document.querySelector('main').textContent"

    def compute(lo: int, hi: int) -> None:
        records = [signal("oil", BASE_MS + 1_000 * i, 20 + i % 3) for i in range(lo, hi)]
        write_segments(home, "line1", records)
        with closing(Engine(home, plant)) as engine:
            while engine.run_batch("line1", run_id="run"):
                pass

    compute(0, 100)
    with (
        closing(LivePage(home, last_s=3_600.0, refresh_s=0.1)) as live,
        ReportServer(live, port=0) as server,
    ):
        tab.open(server.url, width=DESKTOP)
        assert "in 100 rows" in tab.value(shown)
        tab.value("window.stayed = document.querySelector('main'); 0")
        tab.value("document.querySelectorAll('details')[1].open = false")
        compute(100, 130)
        tab.wait_for(f"{shown}.includes('in 130 rows')")
        assert "in 100 rows" not in tab.value(shown)
        assert tab.value("!stayed.isConnected && document.querySelectorAll('main').length == 1")
        folded = "Array.from(document.querySelectorAll('details'), (one) => one.open)"
        assert tab.value(folded)[:3] == [True, False, True]
        lost = "document.body.classList.contains('lost')"
        for offline in (True, False):
            tab.cut(offline=offline)
            tab.wait_for(f"{lost} == {json.dumps(offline)}")
            assert "in 130 rows" in tab.value(shown)
