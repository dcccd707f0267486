import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from buffer_service.service import CaptureService
from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, hour_start_ms, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_reader import sealed_records
from tests.servers.engines import LINE, contents, engine_at, rows_of, settle
from tests.servers.fault_table import Outcome, Tell
from tests.servers.opcua import MOTOR, SIGNAL, STATE, VALVE, OpcUaServer
from tests.servers.tcp_proxy import TcpProxy

DEADLINE_S = 60.0
TOPICS = (SIGNAL, STATE, VALVE, MOTOR)
COMPUTED = (
    *(schema.SIGNALS, schema.SIGNAL_ANOMALIES, schema.STATES, schema.VALVE_ANOMALIES),
    *(schema.ELECTRICAL_READINGS, schema.ELECTRICAL_CYCLES),
)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def plant(url: str, **source: Any) -> Plant:
    nodes = [{"path": "Plant/line1/m/state", "kind": "state"}, {"path": "Plant/line1/*/*"}]
    given = {"kind": "opcua", "name": "plc", "url": url, "nodes": nodes, **source}
    return Plant.model_validate({"sources": [given], "lines": [LINE]})


@contextmanager
def capturing(home: Path, plant: Plant) -> Iterator[Callable[[], dict[str, Any]]]:
    with CaptureService(Home(home), plant) as service:
        yield service.statistics


def records(home: Path) -> list[Record]:
    return sealed_records(Home(home), LINE)


def said_of(home: Path) -> list[dict[str, Any]]:
    return [json.loads(r.payload) for r in records(home) if r.topic == "$gap/plc"]


def batches(engine: Engine, run: str) -> None:
    while engine.run_batch(LINE, run_id=run, row_cap=50):
        pass


@pytest.mark.faults
def test_what_a_gap_lacks_comes_from_history_and_the_hours_are_complete(
    tmp_path: Path, told: Tell
) -> None:
    hour = hour_of(now_ms())
    # the first 200 of 500 values belong to the hour before
    start_ms = hour_start_ms(hour) - 2_005
    server = OpcUaServer(tmp_path / "server", history_s=MS_PER_HOUR)
    with server, TcpProxy(server.port) as proxy:
        given = plant(f"opc.tcp://127.0.0.1:{proxy.port}")
        engine = Engine(Home(tmp_path), given)
        with capturing(tmp_path, given) as statistics:

            def count(name: str) -> int:
                found: int = statistics()["sources"]["plc"][name]
                return found

            def captured() -> int:
                found: int = statistics()["lines"][LINE]["captured"]
                return found

            until(lambda: captured() == 4, "first values")
            server.tell(f"burst 1 101 1 {start_ms}")
            until(lambda: captured() == 4 + 400, "values before the gap")
            proxy.cut()
            server.tell("forget")
            server.tell(f"burst 101 401 1 {start_ms}")
            proxy.mend()
            until(lambda: count("connects") == 2, "connected again")
            server.tell(f"burst 401 501 1 {start_ms}")
            until(lambda: any("filled" in one for one in said_of(tmp_path)), "filled")
            until(lambda: captured() == 4 + 4 * 500 + 2, "everything")
            batches(engine, "live")
            kept = count("from_history")
    log = records(tmp_path)
    times = Counter((r.topic, r.source_ts) for r in log if r.topic in TOPICS and not r.quality)
    shown = {(t, 1_000 * (start_ms + 10 * n)) for t in TOPICS for n in range(1, 501)}
    told(
        Outcome.of(
            "OPC UA session lost, server has history",
            1,
            shown,
            times.elements(),
            noticed="gap record, filled",
        )
    )
    assert sorted(times) == sorted(
        (topic, 1_000 * (start_ms + 10 * n)) for topic in TOPICS for n in range(1, 501)
    )
    assert set(times.values()) == {1}
    assert sum(r.retain for r in log) == kept == 4 * 299  # the last one was still shown
    opened, closed = said_of(tmp_path)
    assert (closed["filled"], closed["complete"]) == (kept, True)
    assert {**opened, "filled": kept, "complete": True} == closed

    assert engine.dirty_hours(LINE) == [hour - 1]
    settle(engine)
    ordered = sorted(
        (r for r in log if r.topic in TOPICS and not r.quality), key=lambda r: r.source_ts or 0
    )
    whole = engine_at(tmp_path / "whole", ordered, given, rows=100)
    batches(whole, "live")
    for at in (hour - 1, hour):
        for table in COMPUTED:
            values, wanted = (
                rows_of(one, table, at).drop_columns(list(table.names("provenance"))).to_pylist()
                for one in (engine, whole)
            )
            # what the node showed before its first value is none
            held = [row for row in values if not pd.isna(row.get("value", 0))]
            assert held == wanted, table.name
    before = contents(engine)
    for at in (hour - 1, hour):
        engine.rerun(LINE, at, run_id="again")
    assert contents(engine) == before


@pytest.mark.parametrize("history", ["fill", "off"])
def test_the_time_that_the_buffer_was_away_is_filled(tmp_path: Path, history: str) -> None:
    with OpcUaServer(tmp_path / "server", history_s=MS_PER_HOUR) as server:
        given = plant(server.url, history=history)
        with capturing(tmp_path, given) as statistics:
            until(lambda: statistics()["lines"][LINE]["captured"] == 4, "first values")
        server.tell("burst 1 11 10")
        with capturing(tmp_path, given) as statistics:
            until(lambda: len(said_of(tmp_path)) == 1 + (history == "fill"), "the gap")
            until(lambda: statistics()["lines"][LINE]["captured"] >= 9, "the values of now")
    numbers = {json.loads(r.payload).get("StateValue") for r in records(tmp_path)}
    assert numbers >= (set(range(1, 11)) if history == "fill" else {10})
    assert (5 in numbers) == (history == "fill")


def test_the_first_start_brings_the_history_that_is_asked_for(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path / "server", history_s=MS_PER_HOUR) as server:
        server.tell("burst 1 101 1")
        given = plant(server.url, first_history_s=600)
        with capturing(tmp_path, given) as statistics:
            until(lambda: statistics()["sources"]["plc"]["from_history"] == 4 * 99, "history")
            until(lambda: statistics()["lines"][LINE]["captured"] == 4 * 100, "all of it")
    assert said_of(tmp_path) == []


def test_a_server_without_history_leaves_the_gap_open(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path / "server") as server:
        with capturing(tmp_path, plant(server.url)) as statistics:
            until(lambda: statistics()["lines"][LINE]["captured"] == 4, "first values")
        with capturing(tmp_path, plant(server.url)) as statistics:
            until(lambda: statistics()["sources"]["plc"]["gaps"] == 1, "the gap")
            until(lambda: statistics()["lines"][LINE]["captured"] == 9, "the values of now")
            server.tell("burst 1 11 10")
            until(lambda: statistics()["lines"][LINE]["captured"] == 9 + 40, "live values")
    assert ["filled" in one for one in said_of(tmp_path)] == [False]
