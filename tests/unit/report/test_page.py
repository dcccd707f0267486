import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from iiot_platform.alerts.evaluation import Alert
from iiot_platform.alerts.lifecycle import AlertKey, Evidence
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.pages import partition_page
from iiot_platform.engine.status import (
    BatchState,
    BufferState,
    LineStatus,
    PlantStatus,
    SinkState,
)
from iiot_platform.report.content import (
    Chart,
    Curve,
    Event,
    Figures,
    Flagged,
    Group,
    Lineage,
    LineReport,
    Overview,
    Report,
    Section,
    Stretch,
    Timeline,
)
from iiot_platform.report.listings import age
from iiot_platform.report.page import GRAFANA_ALONE, render, waiting

START = 1_795_338_000_000
END = START + 100_000
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&lt;"


class Elements(HTMLParser):
    """The elements, attributes and text of a page as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def report(name: str = "oil_pressure", *, flagged: int = 3) -> Report:
    ts = START + 1_000 * np.arange(100)
    numbers = (1_234, 200, flagged, 0.1, 5.125, 4.0, 6.5)
    figures = Figures(name, name, name, name, *numbers, off_reference=True)
    chart = Chart(name, (Curve(name, ts, np.ones(100)), Curve(name, ts, np.ones(100))), name)
    tested = Chart(name, (Curve(name, ts, np.ones(100)),), name, figures=figures)
    states = Timeline(name, ((name, (Stretch(START, END, 1),)),))
    overview = Overview(END - 5_000, 98_765, 14, flagged, 2, 0.957, 0.25, 6.0, 0.983)
    lineage = Lineage(name, 1_234, END, 7, name, (name, "f099a28a4542"))
    sections = (Section(name, (Group(name, (chart, tested, states)),)),)
    found = Flagged(START, "signals", name, name, name, 9.5, 5.0, 4.5, name, name)
    event = Event(START, END, name, name, hour_of(START), name)
    line = LineReport(name, overview, sections, (lineage,), (found,), (event,))
    return Report(START, END, END, (line,) * 2, status(name))


def status(name: str) -> PlantStatus:
    """What a platform says of itself that has trouble of every kind."""
    buffer = BufferState(
        running=False,
        written_ms=END - 90_000,
        storage_error=name,
        sources={name: name},
        redeliveries_dropped=17,
        warnings=(name,),
        hot_rows=4_321,
        commits={"count": 55_555, "mean_s": 0.0125, "longest_s": 1.5},
        seals={"count": 6_666},
        counts={name: {"waiting": 77, "connects": 3}},
        free_bytes=5_000_000_000,
        size_bytes=100_000_000_000,
    )
    line = LineStatus(
        name,
        captured=9_999,
        consumed=8_888,
        lag_rows=1_111,
        lag_s=45.0,
        quarantined={name: 12},
        batches=BatchState(33, END - 120_000, 0.25, 0.75),
        rows={name: 2_222},
        dirty={name: [name]},
        sinks={name: SinkState(7_777, 8, 9, name)},
    )
    return PlantStatus(END, buffer, (line,))


def test_names_are_text_wherever_they_stand() -> None:
    plain, hostile = Elements(render(report("name"))), Elements(render(report(HOSTILE)))

    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert hostile.tags.count("script") == 1
    assert "onerror" not in {name for name, _ in hostile.attributes}
    assert hostile.text.count(HOSTILE) > 20


def test_only_the_pages_own_script_may_run() -> None:
    page = render(report(), dagster_url="http://127.0.0.1:3000")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)

    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)
    assert "connect-src 'none'" in policy
    assert (
        "connect-src 'self'" in re.findall(r'content="([^"]*)"', render(report(), refresh_s=5))[0]
    )


def test_no_request_leaves_the_page() -> None:
    page = Elements(render(report()))
    sources = [value for name, value in page.attributes if name in {"src", "href", "srcset"}]

    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert all(value is not None and value.startswith("#") for value in sources)
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_its_numbers_are_there() -> None:
    text = re.sub(r"\s+", " ", Elements(render(report())).text)

    assert "98,765" in text
    assert "95.7%" in text
    assert "3 anomalies in 1,234 rows" in text
    assert "now 5.125" in text
    assert "limits 4 to 6.5" in text
    assert "off reference" in text
    assert "f099a28a4542" in text
    assert "not Grafana" in text
    assert "2026-11-22 09:01:40" in text


def test_the_platform_says_how_it_does() -> None:
    page = Elements(render(report("name")))
    text = re.sub(r"\s+", " ", page.text)

    for told in ("silent for 2 min", "4,321", "12.50 ms", "1,500 ms", "5.0 GB (5%)", "77"):
        assert told in text, told
    for told in ("9,999", "8,888", "1,111", "45 s", "250 ms", "750 ms", "2 min ago", "2,222"):
        assert told in text, told
    assert "7,777" in text
    assert ("href", "#platform") in page.attributes
    assert all(title in text for title in GRAFANA_ALONE)


def test_a_buffer_that_never_ran_is_said() -> None:
    nothing = PlantStatus(END, BufferState(), ())
    text = Elements(render(Report(START, END, END, (), nothing))).text
    assert "never ran here" in text
    assert "Databases" not in text
    assert "Platform" not in render(Report(START, END, END, ())).split("<footer>")[0]


def test_anomalies_and_events_link_to_run_and_partition() -> None:
    page = Elements(render(report("a/b"), dagster_url="http://d"))
    hour = hour_of(START)
    for table in ("signals", schema.READINGS.name):
        assert ("href", partition_page("http://d", "a/b", table, hour)) in page.attributes
    assert page.attributes.count(("href", "http://d/runs/a%2Fb")) == 6


def test_a_number_that_is_none_is_none_in_json() -> None:
    found = report()
    line = replace(found.lines[0], flagged=(replace(found.lines[0].flagged[0], mean=math.nan),))
    body = replace(found, lines=(line,)).as_json()
    (one,) = json.loads(json.dumps(body, allow_nan=False))["lines"][0]["newest_anomalies"]
    assert (one["mean"], one["value"]) == (None, 9.5)


def test_runs_link_to_dagster_where_its_address_is_known() -> None:
    page = Elements(render(report("a/b"), dagster_url="http://127.0.0.1:3000"))
    assert ("href", "http://127.0.0.1:3000/runs/a%2Fb") in page.attributes


def test_what_fires_is_listed_the_newest_first_with_its_pages() -> None:
    assert 'class="alerts"' not in render(report())
    assert "No alert fires." in render(report(), firing=[])
    run = "5f1c9c0e-3f7e-4c7e-9a66-0d0d8d1c4b11"
    evidence = Evidence(START, run, "signal_anomalies")
    some = [
        Alert(
            key=AlertKey("line1", "anomaly_ratio", f"press/<{i}>"),
            state="firing",
            since_ms=START,
            fired_ms=START + i,
            value=0.5,
            peak=0.6,
            threshold=0.2,
            clear=0.1,
            severity="warning",
            evidence=evidence,
        )
        for i in range(10)
    ]
    text = render(report(), firing=some, dagster_url="http://d")
    page = Elements(text)
    assert "Alerts that fire: 10" in page.text
    assert page.text.index("press/<9>: many anomalies") < page.text.index("press/<8>: many")
    assert "press/<1>" not in page.text
    assert "and 2 more" in page.text
    hour = partition_page("http://d", "line1", "signal_anomalies", hour_of(START))
    assert {("href", hour), ("href", f"http://d/runs/{run}")} <= set(page.attributes)


def test_an_empty_plant_and_an_empty_line_are_said() -> None:
    empty = Report(START, END, END, ())
    assert "Nothing has been computed yet" in render(empty)
    overview = Overview(None, 0, 0, 0, 0, None, None, None, 1.0)
    page = render(Report(START, END, END, (LineReport("line1", overview, (), ()),)))
    assert "No rows in this period" in page
    assert "never" in page
    assert "unknown" in page
    assert ">nan" not in page.lower()


def test_a_problem_is_told_and_tried_again() -> None:
    page = waiting("no ledger in '<here>'", refresh_s=5)
    assert "&lt;here&gt;" in page
    assert 'data-refresh="5000"' in page


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (90, "2 min"), (5_400, "1.5 h"), (172_800, "2.0 d")]
)
def test_ages_are_said_as_people_do(seconds: float, text: str) -> None:
    assert age(seconds) == text
