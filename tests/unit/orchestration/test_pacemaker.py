"""What the pacemaker starts, and what it leaves to the sensor."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dagster import DagsterRunStatus, RunRequest
from dagster._core.test_utils import create_run_for_test

from iiot_platform.config.plant import BatchSettings
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.ledger import Ledger
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import LineNames
from iiot_platform.orchestration.pacemaker import Pacemaker, run_tags
from tests.servers.site import Site


class Paced:
    """A pacemaker, and the runs that it has started."""

    def __init__(self, site: Site, launchers: ThreadPoolExecutor) -> None:
        batches = BatchSettings(live_interval_s=1.0)
        site.plant = site.plant.model_copy(update={"batches": batches})
        self.site = site
        self.started: list[dict[str, str]] = []
        self.refuses = False
        installation = Installation(site.settings, site.plant, clock=lambda: site.now_ms)
        self.pacemaker = Pacemaker(installation, site.instance, self._launch, launchers)

    def _launch(self, names: LineNames, request: RunRequest) -> None:
        if self.refuses:
            raise ConnectionRefusedError
        tags = run_tags(names, request)
        create_run_for_test(
            self.site.instance, str(request.job_name), tags=tags, status=DagsterRunStatus.SUCCESS
        )
        self.started.append(tags)

    def look(self, after_ms: int = 0) -> list[str]:
        """The run keys of what a look starts."""
        self.site.now_ms += after_ms
        self.started.clear()
        self.pacemaker.look()
        for answer in self.pacemaker._answers.values():
            answer.result(30)
        return [tags["dagster/run_key"] for tags in self.started]


@pytest.fixture
def paced(site: Site) -> Iterator[Paced]:
    with ThreadPoolExecutor(1) as launchers:
        yield Paced(site, launchers)


def test_a_batch_begins_when_the_interval_is_over(paced: Paced) -> None:
    assert paced.look() == []
    paced.site.write("press_1")
    assert paced.look() == ["press_1:0-100:1"]
    paced.site.engine().run_batch("press_1", run_id="r")
    paced.site.write("press_1")
    assert paced.look(900) == []
    assert paced.look(100) == ["press_1:100-200:1"]


def test_its_runs_are_those_of_the_sensor(paced: Paced) -> None:
    paced.site.write("press_1")
    (request,) = paced.site.tick().run_requests or ()
    assert paced.look() == []  # it is about to begin
    assert paced.look(5_000) == ["press_1:0-100:1"]  # and has not
    job = paced.site.definitions.resolve_job_def("live_press_1")
    assert paced.started == [
        {
            **job.tags,
            **request.tags,
            "dagster/run_key": request.run_key,
            "dagster/sensor_name": "new_data",
            "iiot/paced": "true",
        }
    ]


def test_the_sensor_leaves_a_line_to_the_pacemaker_that_is_at_it(paced: Paced) -> None:
    paced.site.write("press_1")
    paced.look()
    paced.site.engine().run_batch("press_1", run_id="r")
    paced.site.write("press_1")
    paced.site.now_ms += 4_000
    assert not paced.site.tick().run_requests
    paced.site.now_ms += 1_000  # the pacemaker has gone
    (request,) = paced.site.tick().run_requests or ()
    assert request.run_key == "press_1:100-200:1"


def test_what_the_sensor_has_started_is_not_started_again(paced: Paced) -> None:
    paced.site.write("press_1")
    tags = {"dagster/run_key": "press_1:0-100:1", "dagster/sensor_name": "new_data"}
    create_run_for_test(paced.site.instance, tags=tags, status=DagsterRunStatus.SUCCESS)
    assert paced.look() == []


def test_a_line_with_a_run_is_left_alone(paced: Paced) -> None:
    paced.site.write("press_1")
    tags = {"iiot/line": "press_1", "iiot/kind": "live"}
    run = create_run_for_test(paced.site.instance, tags=tags, status=DagsterRunStatus.STARTED)
    assert paced.look() == []
    paced.site.instance.report_run_failed(run)
    assert paced.look() == ["press_1:0-100:1"]


def test_what_has_failed_is_the_sensors(paced: Paced) -> None:
    paced.site.write("press_1")
    assert paced.look() == ["press_1:0-100:1"]
    for _ in range(9):
        assert paced.look(1_000) == []
    (request,) = paced.site.tick().run_requests or ()
    assert request.job_name == "live_press_1"
    paced.site.write("Línea 2 (Nord)")
    assert paced.look(5_000) == ["Línea 2 (Nord):0-100:1"]


def test_a_web_server_that_is_away_stops_nothing(
    paced: Paced, caplog: pytest.LogCaptureFixture
) -> None:
    paced.site.write("press_1")
    paced.refuses = True
    assert paced.look() == []
    assert "line 'press_1' is left to the sensor" in caplog.text
    paced.refuses = False
    paced.site.engine().run_batch("press_1", run_id="r")
    paced.site.write("press_1")
    assert paced.look(1_000) == ["press_1:100-200:1"]


def test_a_line_that_can_not_be_read_holds_up_no_other(
    paced: Paced, monkeypatch: pytest.MonkeyPatch
) -> None:
    watermark = Ledger.watermark

    def broken(ledger: Ledger, line: str) -> int:
        if line == "press_1":
            raise StorageError("the disk is gone")
        return watermark(ledger, line)

    monkeypatch.setattr(Ledger, "watermark", broken)
    paced.site.write("press_1")
    paced.site.write("Línea 2 (Nord)")
    assert paced.look() == ["Línea 2 (Nord):0-100:1"]
