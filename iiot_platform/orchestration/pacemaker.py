"""Live batches at a pace below that of Dagster's daemon, which looks every 5 s.

    python -m iiot_platform.orchestration.pacemaker [--url http://127.0.0.1:3000]

It asks the same question as the sensor and launches what the sensor would launch, with the
sensor's tags and run key, through the API of the web server. It makes first attempts alone: what
fails, reruns, and everything while this process or the web server is away, is the sensor's.

Whoever starts a batch of a line holds a lease on it for some seconds, so that the other leaves the
next one to it, and either looks for the run key before it starts a run. Should both start one all
the same, the ledger lets one of them commit, and the other finds nothing left.
"""

import argparse
import http.client
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from dagster import DagsterInstance, RunRequest, RunsFilter

from iiot_platform.config.active_plant import active_path, plant_in_force
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import PlatformError
from iiot_platform.orchestration.attempts import Memory
from iiot_platform.orchestration.decision import Evaluation, active_runs
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.instance import LOCATION
from iiot_platform.orchestration.naming import (
    PACED_TAG,
    SENSOR,
    LineNames,
    line_names,
)
from iiot_platform.orchestration.processes import graphql_at

_LOOKS: Final = 5
"""Looks at the log per interval: what is sealed waits for a fraction of it."""
_IDLE_S: Final = 5.0
"""How often to see whether the plant in force wants a pace by now."""
_LAUNCHERS: Final = 4
_RUN_KEY_TAG: Final = "dagster/run_key"
_SENSOR_TAG: Final = "dagster/sensor_name"
_LAUNCH: Final = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""

logger = logging.getLogger("iiot_platform.pacemaker")

Launch = Callable[[LineNames, RunRequest], None]


class LaunchRefusedError(PlatformError):
    """The web server does not launch a run."""

    def __init__(self, line: str, answer: Mapping[str, Any]) -> None:
        reason = answer.get("message") or answer["__typename"]
        super().__init__(f"line '{line}': the web server launches no run: {reason}")


@dataclass
class Pacemaker:
    """Starts the live batches of one installation.

    Attributes:
        installation: what there is to do.
        instance: has the runs.
        launch: starts a run.
        launchers: where runs are started, so that a slow answer holds up no other line.
        memory: what was asked for.
    """

    installation: Installation
    instance: DagsterInstance
    launch: Launch
    launchers: ThreadPoolExecutor
    memory: Memory = field(default_factory=Memory)
    _asked_ms: dict[str, int] = field(default_factory=dict)
    _answers: dict[str, Future[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = line_names(self.installation.plant.line_names)

    @property
    def interval_s(self) -> float | None:
        """How often a batch is to begin; None: the sensor's pace will do."""
        return self.installation.plant.batches.live_interval_s

    def look(self) -> None:
        """Starts a batch of every line that has something new and whose interval is over."""
        if self.interval_s is None:
            return
        now = self.installation.clock()
        due = [names for names in self._lines if self._due(names.line, now)]
        if not due:
            return
        active = active_runs(self.instance, now_s=now / MS_PER_S, since_s=0.0)
        evaluation = Evaluation(self.installation, active, self.memory, now, by="pacemaker")
        for names in due:
            try:
                request = evaluation.first_attempt(names)
            except PlatformError:
                logger.exception("line '%s' can not be looked at", names.line)
                self._asked_ms[names.line] = now
                continue
            if request is not None:
                self._asked_ms[names.line] = now
                self._answers[names.line] = self.launchers.submit(self._start, names, request)

    def _due(self, line: str, now: int) -> bool:
        interval_ms = int((self.interval_s or 0.0) * MS_PER_S)
        if now - self._asked_ms.get(line, -interval_ms) < interval_ms:
            return False
        answer = self._answers.get(line)
        if answer is not None and not answer.done():
            return False
        engine = self.installation.engine
        try:
            return engine.log.head(line) > engine.ledger.watermark(line)
        except PlatformError:
            return True  # the evaluation says what is wrong

    def _start(self, names: LineNames, request: RunRequest) -> None:
        try:
            tags = {_RUN_KEY_TAG: str(request.run_key), _SENSOR_TAG: SENSOR}
            if not self.instance.get_runs(RunsFilter(tags=tags), limit=1):
                self.launch(names, request)
        except (PlatformError, OSError, http.client.HTTPException, RuntimeError) as error:
            logger.warning("line '%s' is left to the sensor: %s", names.line, error)


def run_tags(names: LineNames, request: RunRequest) -> dict[str, str]:
    """The tags that the run has where the sensor starts it, and that it was the pacemaker."""
    return {
        **names.live_tags,
        **request.tags,
        _SENSOR_TAG: SENSOR,
        _RUN_KEY_TAG: str(request.run_key),
        PACED_TAG: "true",
    }


def launch_through(url: str) -> Launch:
    """Launches runs through the web server at a URL."""

    def launch(names: LineNames, request: RunRequest) -> None:
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "jobName": request.job_name,
            },
            "mode": "default",
            "executionMetadata": {
                "tags": [{"key": k, "value": v} for k, v in run_tags(names, request).items()]
            },
        }
        answer = graphql_at(url, _LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise LaunchRefusedError(names.line, answer)

    return launch


def _pace(settings: Settings, environ: Mapping[str, str], url: str, stop: threading.Event) -> None:
    """Keeps the pace of the plant in force until it is stopped or another plant is in force."""
    in_force = _signature(settings)
    installation = Installation(settings, plant_in_force(settings, environ))
    with (
        DagsterInstance.get() as instance,
        ThreadPoolExecutor(_LAUNCHERS, "launch") as launchers,
    ):
        pacemaker = Pacemaker(installation, instance, launch_through(url), launchers)
        interval_s = pacemaker.interval_s
        logger.info(
            "no pace of its own is set"
            if interval_s is None
            else f"a batch of every line each {interval_s:g} s"
        )
        pause_s = _IDLE_S if interval_s is None else interval_s / _LOOKS
        while _signature(settings) == in_force:
            pacemaker.look()
            if stop.wait(pause_s):
                break
    installation.engine.close()


def _signature(settings: Settings) -> tuple[int, int]:
    """Another one where another plant is in force."""
    try:
        status = active_path(settings.home).stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("iiot_platform").setLevel(logging.INFO)
    settings = Settings.from_environ(os.environ)
    parser = argparse.ArgumentParser(prog="pacemaker", description=__doc__)
    parser.add_argument("--url", default=settings.dagster_url, help="of Dagster's web server")
    url: str = parser.parse_args(argv).url.rstrip("/")
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not stop.is_set():
        _pace(settings, os.environ, url, stop)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
