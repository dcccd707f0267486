import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from iiot_platform.cli.app import frame
from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.exporter import watch as watch_module
from iiot_platform.exporter.collector import PlatformCollector, unhealthy, unready
from iiot_platform.exporter.dagster_state import DagsterReader
from iiot_platform.exporter.watch import PlatformWatch
from iiot_platform.metrics import platform as declared
from iiot_platform.orchestration.access import opened
from iiot_platform.orchestration.instance import prepare_instance
from iiot_platform.orchestration.pool import wire
from tests.servers import prometheus
from tests.servers.capture_log import write_segments
from tests.servers.http_client import samples
from tests.servers.lines import signal_records

LINE = "line1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=Home(tmp_path), plant_path=tmp_path / "plant.yaml")


@contextmanager
def watching(settings: Settings) -> Iterator[PlatformWatch]:
    with closing(PlatformWatch(settings, {})) as watch:
        yield watch


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is a look of its own."""
    monkeypatch.setattr(watch_module, "FRESH_S", 0.0)
    monkeypatch.setattr(watch_module, "_BUSY_SHARE", 1e9)


def exposed(watch: PlatformWatch) -> str:
    registry = CollectorRegistry()
    registry.register(PlatformCollector(watch))
    return generate_latest(registry).decode()


def capture(home: Home, rows: int, *, line: str = LINE) -> None:
    end = now_ms()
    write_segments(home, line, signal_records(line, range(end - rows, end)))


def compute(home: Home, line: str = LINE) -> None:
    with closing(
        Engine(home, Plant.model_validate({"lines": [line]}), sinks=("influxdb",))
    ) as engine:
        while engine.run_batch(line, run_id="run"):
            pass


@pytest.mark.usefixtures("always")
def test_an_empty_home_is_told_and_stays_empty(settings: Settings) -> None:
    with watching(settings) as watch:
        found = samples(exposed(watch))
        assert found["iiot_ledger_up"] == 0
        assert found["iiot_capture_running"] == 0
        assert found["iiot_filesystem_free_bytes"] > 0
        assert unready(watch) == {
            "ledger": "there is none yet; nothing was computed",
            "buffer": "never ran here",
        }
        assert unhealthy(watch) == {}
    assert not list(settings.home.root.iterdir())


@pytest.mark.usefixtures("always")
def test_the_figures_are_those_of_log_and_ledger(settings: Settings) -> None:
    home = settings.home
    with watching(settings) as watch:
        exposed(watch)
        capture(home, 40)
        write_segments(
            home, LINE, [r._replace(payload=b"?") for r in signal_records(LINE, [now_ms()])]
        )
        found = samples(exposed(watch))
        assert found['iiot_line_lag_rows{line="line1"}'] == 41
        compute(home)
        text = exposed(watch)
        found = samples(text)
        assert found['iiot_line_captured_offset{line="line1"}'] == 41
        assert found['iiot_line_consumed_offset{line="line1"}'] == 41
        assert found['iiot_line_lag_rows{line="line1"}'] == 0
        assert found['iiot_batches_total{line="line1"}'] == 1
        assert found['iiot_batch_duration_seconds_count{kind="live",line="line1"}'] == 1
        assert found['iiot_table_rows{line="line1",table="signals"}'] == 40
        assert sum(v for k, v in found.items() if k.startswith("iiot_quarantined_total")) == 1
        assert found['iiot_sink_pending_entries{line="line1",sink="influxdb"}'] > 0
        assert found["iiot_ledger_up"] == 1
        assert unready(watch) == {"buffer": "never ran here"}
    served = {row.split()[2] for row in text.splitlines() if row.startswith("# TYPE ")}
    assert served == {metric.name for metric in declared.METRICS}


@pytest.mark.usefixtures("always")
def test_a_batch_counts_once_and_those_before_the_start_do_not(settings: Settings) -> None:
    home = settings.home
    name = 'iiot_batch_duration_seconds_count{kind="live",line="line1"}'
    capture(home, 10)
    compute(home)
    with watching(settings) as watch:
        assert name not in samples(exposed(watch))
        for count in (1, 2):
            capture(home, 10)
            compute(home)
            for _ in range(2):
                assert samples(exposed(watch))[name] == count
        assert samples(exposed(watch))['iiot_batches_total{line="line1"}'] == 3


def test_many_who_ask_cause_one_look(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FRESH_S", 3_600.0)
    with watching(settings) as watch:
        first = watch.look()
        capture(settings.home, 5)
        assert watch.look() is first


@pytest.mark.usefixtures("always")
def test_a_broken_ledger_is_named_and_the_process_stays_healthy(settings: Settings) -> None:
    settings.home.ledger.write_bytes(b"no database" * 1_000)
    with watching(settings) as watch:
        assert samples(exposed(watch))["iiot_ledger_up"] == 0
        assert "not a database" in unready(watch)["ledger"]
        assert unhealthy(watch) == {}


def status_file(home: Home, written_ms: int) -> None:
    home.capture.mkdir(exist_ok=True)
    text = json.dumps({"written_ms": written_ms, "storage_error": ""})
    (home.capture / "status.json").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("always")
def test_a_buffer_that_fell_silent_is_named(settings: Settings) -> None:
    with watching(settings) as watch:
        status_file(settings.home, now_ms())
        assert "buffer" not in unready(watch)
        status_file(settings.home, now_ms() - 60_000)
        assert unready(watch)["buffer"].startswith("not running since ")


@pytest.mark.usefixtures("always")
def test_a_pool_and_daemons_that_are_away_are_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_instance(settings.home)
    with watching(settings) as watch:
        found = samples(exposed(watch))
        assert found["iiot_pool_up"] == 0
        assert found['iiot_dagster_runs{status="success"}'] == 0
        problems = unready(watch)
        assert "no pool listens at" in problems["pool"]
        assert problems["daemon"] == "never ran here"

        crew = {"error": None, "retired": False}
        workers = [{"run_id": "a", "rss_mb": 100.0}, {"run_id": None, "rss_mb": 50.0}]
        report = {"waiting": 3, "crews": [{**crew, "workers": workers}]}
        monkeypatch.setattr(wire, "ask", lambda *_, **__: report)
        found = samples(exposed(watch))
        assert [found[f"iiot_pool_{n}"] for n in ("up", "workers", "runs_running")] == [1, 2, 1]
        assert found["iiot_pool_runs_waiting"] == 3
        assert found["iiot_pool_memory_bytes"] == 150 * 2**20
        assert "pool" not in unready(watch)


def test_a_daemon_that_fell_silent_is_named(settings: Settings) -> None:
    prepare_instance(settings.home)

    def beat(instance: DagsterInstance, name: str, age_s: float) -> None:
        at = time.time() - age_s
        instance.run_storage.add_daemon_heartbeat(DaemonHeartbeat(at, name, "id", []))

    with opened(settings.home) as instance:
        beat(instance, "SENSOR", 5)
        beat(instance, "SCHEDULER", 500)
    with watching(settings) as watch:
        problems = unready(watch)
        assert problems["daemon scheduler"].startswith("silent for 5")
        assert "daemon sensor" not in problems
        found = samples(exposed(watch))
        heartbeat = 'iiot_dagster_daemon_heartbeat_timestamp_seconds{daemon="sensor"}'
        assert found[heartbeat] == pytest.approx(time.time(), abs=60)


def test_a_storage_that_can_not_be_read_is_a_problem(settings: Settings) -> None:
    settings.home.dagster.mkdir()
    (settings.home.dagster / "dagster.yaml").write_text("storage: nonsense\n")
    assert "can not be read" in DagsterReader(settings.home).read().problem


def test_the_command_prints_what_promtool_accepts(settings: Settings) -> None:
    home = settings.home
    capture(home, 5)
    compute(home)
    environ: Mapping[str, str] = {"IIOT_HOME": str(home.root)}
    result = CliRunner().invoke(frame("metrics"), ["metrics"], obj=environ)
    assert result.exit_code == 0, result.output
    assert samples(result.stdout)['iiot_line_consumed_offset{line="line1"}'] == 5
    prometheus.require()
    prometheus.promtool("check", "metrics", text=result.stdout)


def test_looks_that_cost_much_are_rare_and_one_alone_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, spent_s, costs, looks = [1_000.0], [0.0], [3.0, 0.01, 3.0, 3.0, 3.0, 0.01, 0.01], []

    def look(_: PlatformWatch, began: float) -> watch_module.Look:
        looks.append(began - 1_000)
        spent_s[0] += costs[len(looks) - 1]
        return watch_module.Look()

    monkeypatch.setattr(PlatformWatch, "_look_now", look)
    monkeypatch.setattr(watch_module, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(watch_module, "thread_time", lambda: spent_s[0])
    with watching(settings) as watch:
        while len(looks) < len(costs):
            watch.look()
            now_s[0] += 1
    assert looks == [0, 2, 4, 6, 66, 126, 128]
