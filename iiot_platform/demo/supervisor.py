"""The demo itself: starts everything in order, watches it, stops it in order."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import psutil

from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import PlatformError
from iiot_platform.demo import outcome, ports
from iiot_platform.demo.alerts import AlertNews
from iiot_platform.demo.children import Child, Command, adopt_orphans, reap, stop_together
from iiot_platform.demo.dagster import DagsterChildren
from iiot_platform.demo.display import Display, sentence
from iiot_platform.demo.drain import Drain
from iiot_platform.demo.installation import DemoInstallation
from iiot_platform.demo.outcome import LineResult, Outcome
from iiot_platform.demo.pages import Pages
from iiot_platform.demo.progress import Progress, Simulation
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario

START_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 90.0
STOP_S: Final = 13.0
_SIMULATOR_STOP_S: Final = 4.0
_BUFFER_STOP_S: Final = 5.0
_RUNS_END_S: Final = 2.0
_REAP_S: Final = 1.0
_POLL_S: Final = 0.25
_LOOK_EVERY_S: Final = 1.0
_SHOW_EVERY_S: Final = 3.0
_ADDRESSES_EVERY_S: Final = 30.0
_SETTLED_MS: Final = 1_000


class DemoStartError(PlatformError):
    """A part of the demo does not become ready."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"the {what} is not ready. {hint}")


class Supervisor:
    """One run of the demo.

    Args:
        demo: what is started.
        display: where it tells how it goes.
    """

    def __init__(self, demo: DemoInstallation, display: Display) -> None:
        self._demo = demo
        self._home = demo.settings.home
        self._display = display
        self._stopping = False
        self._progress = Progress(self._home, demo.plant.line_names)
        self._broker = self._make(demo.broker())
        self._buffer = self._make(demo.buffer())
        self._simulator = self._make(demo.simulator())
        server = demo.opcua_simulator()
        self._opcua = None if server is None else self._make(server)
        self._dagster = DagsterChildren(demo, self._make)
        self._pages = Pages(demo, self._make)
        self._alerts = AlertNews(self._home, demo.plant.alerts)
        self._failed_batches: int | None = None
        self._arrivals = Drain(self._home, demo.opcua_lines)
        self._phase = "starting"
        self._looked_at = 0.0
        self._shown_at = 0.0
        self._addresses_at = 0.0

    def run(self) -> Outcome | None:
        """Run until it is stopped, or for the seconds that are asked for.

        Returns:
            What it proved; None where it was stopped or has no end.

        Raises:
            DemoStartError: a part does not become ready.
        """
        began = time.monotonic()
        adopt_orphans()
        try:
            with self._signals():
                try:
                    completed = self._through()
                finally:
                    self._stop()
            self._progress.look()
            return self._outcome(time.monotonic() - began) if completed else None
        finally:
            self._progress.close()

    def _through(self) -> bool:
        """Start, run and drain; False where it was stopped before."""
        self._broker.start()
        if self._opcua is not None:
            self._opcua.start()
        self._buffer.start()
        self._dagster.start()
        self._wait("broker", self._broker, lambda: ports.answers(self._demo.ports["mqtt"]))
        self._wait(
            "buffer",
            self._buffer,
            lambda: self._progress.buffer_connected(
                self._buffer.pid, _SETTLED_MS, [self._demo.broker_source]
            ),
        )
        self._start_simulator()
        if self._opcua is not None:
            self._wait(
                "OPC UA server",
                self._opcua,
                lambda: self._progress.buffer_connected(self._buffer.pid, 0),
            )
        self._wait("Dagster", self._dagster_child(), lambda: self._dagster.ready)
        self._phase = "running"
        self._display.say(self._demo.lines_told)
        seconds = self._demo.options.seconds
        end = None if seconds is None else time.monotonic() + seconds
        while not self._stopping and (end is None or time.monotonic() < end):
            self._tick()
        if not self._stopping:
            self._drain()
        return not self._stopping

    def _dagster_child(self) -> Child:
        return next(child for child in self._dagster.children())

    def _wait(self, what: str, child: Child, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping and not ready():
            if time.monotonic() > deadline:
                raise DemoStartError(what, child.last_words())
            self._tick()

    def _tick(self) -> None:
        """Look after everything once."""
        time.sleep(_POLL_S)
        for child in (self._broker, self._buffer):
            child.watch()
        self._watch_simulator(self._simulator, self._progress.mqtt)
        if self._opcua is not None:
            self._watch_simulator(self._opcua, self._progress.opcua)
        self._dagster.watch()
        self._dagster.advance()
        self._pages.watch()
        self._pages.advance(computed=self._progress.first_commit_ms is not None)
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._progress.look()
            for news in self._alerts.news():
                self._display.say(news)
        if now - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = now
            progress = self._progress
            mqtt, opcua = progress.mqtt.published(), progress.opcua.published()
            shown = sentence(self._phase, mqtt, opcua, progress.since_start())
            self._display.show(f"{shown} | alerts {self._alerts.firing}")
        if self._phase == "running" and now - self._addresses_at >= _ADDRESSES_EVERY_S:
            self._addresses()

    def _start_simulator(self) -> None:
        if not self._stopping:
            self._simulator.start()

    def _watch_simulator(self, child: Child, simulation: Simulation) -> None:
        """Its counts begin anew with each start, so they are kept before it."""
        if child.returncode == 0:
            return
        before = child.restarts
        published = simulation.published()
        child.watch()
        if child.restarts > before:
            self._display.say(f"{child.command.name} had published {published.total:,} messages")
            simulation.restarts()

    def _simulators(self) -> list[Child]:
        return [self._simulator, *(() if self._opcua is None else (self._opcua,))]

    def _addresses(self) -> None:
        self._addresses_at = time.monotonic()
        port = self._demo.ports["mqtt"]
        opcua = self._demo.opcua
        server = "" if opcua is None else f" | OPC UA {opcua.url} ({opcua.security})"
        self._display.say(
            f"Dagster {self._demo.settings.dagster_url} | MQTT mqtt://{ports.HOST}:{port}{server}"
            f" | tables: iiot tables, or Client('{self._home.root}') in a notebook"
            f" | logs {self._home.logs}"
        )
        self._display.say(self._pages.addresses())

    def _drain(self) -> None:
        """Stop the simulators, and let everything be computed that they have published."""
        self._phase = "draining"
        stop_together(self._simulators(), time.monotonic() + _SIMULATOR_STOP_S)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while not self._stopping and time.monotonic() < deadline and not self._drained():
            self._tick()
        self._failed_batches = self._dagster.failed_batches(self._progress.started_ms)

    def _drained(self) -> bool:
        progress = self._progress
        return self._arrivals.is_over(
            progress.status,
            progress.per_line(),
            progress.mqtt.published(),
            progress.opcua.published(),
        )

    def _outcome(self, seconds: float) -> Outcome:
        progress, home = self._progress, self._home
        published, totals = progress.mqtt.published(), progress.since_start()
        served = progress.opcua.published()
        gained = progress.per_line()
        redelivered = progress.status.buffer.redeliveries_dropped
        rows = progress.rows()
        start_ms = progress.started_ms - round(self._demo.options.history_s * MS_PER_S)
        lines = self._demo.plant.line_names
        found = outcome.found_faults(home, home.simulator / "labels.jsonl", lines, start_ms)
        recall, recall_total = outcome.recall(found)
        captures = self._arrivals.captures(gained)
        problems = outcome.losses(home, published.per_line, gained)
        problems += outcome.values_missing(served.shown_per_line, captures)
        if totals.lag_rows:
            problems.append(f"{totals.lag_rows} captured records were not computed in time")
        for line in lines:
            if not (published.per_line.get(line) or served.per_line.get(line)):
                problems.append(f"line '{line}': nothing was published")
        problems += [
            f"table '{table}' has no rows"
            for table in sorted(outcome.fed_tables(self._kinds()))
            if rows.get(table, 0) <= 0
        ]
        first = progress.first_commit_ms
        rate = found.false_alarm_rate
        return Outcome(
            published=published.total,
            captured=sum(hi - lo for line, (lo, hi) in gained.items() if line not in captures),
            opcua=outcome.opcua(served, captures),
            lines=self._line_results(),
            duplicates_dropped=redelivered + totals.duplicates,
            rows=rows,
            quarantined=totals.quarantined,
            anomalies=totals.anomalies,
            alerts=self._alerts.fired,
            recall=recall,
            recall_total=recall_total,
            false_alarms=found.false_alarms,
            false_alarm_rate=None if rate is None else round(rate, 6),
            batches=totals.batches,
            failed_batches=self._failed_batches,
            latency_s=outcome.latency(
                home,
                lines,
                max(filter(None, (published.live_since_ms, served.live_since_ms)), default=None),
            ),
            first_results_s=None
            if first is None
            else round((first - progress.started_ms) / MS_PER_S, 2),
            seconds=round(seconds, 2),
            problems=tuple(problems),
        )

    def _line_results(self) -> dict[str, LineResult]:
        before = {line.line: line for line in self._progress.before.lines}
        results = {}
        for line in self._progress.status.lines:
            then = before.get(line.line)
            over = "OPC UA" if line.line in self._demo.opcua_lines else "MQTT"
            results[line.line] = LineResult(
                over=over,
                captured=line.captured - (then.captured if then else 0),
                batches=line.batches.count - (then.batches.count if then else 0),
                readings=line.rows.get("readings", 0)
                - (then.rows.get("readings", 0) if then else 0),
                anomalies=line.anomalies - (then.anomalies if then else 0),
            )
        return results

    def _kinds(self) -> set[str]:
        options = self._demo.options
        path = options.scenario or DEFAULT_SCENARIO
        return {device.kind for device in load_scenario(path).devices().values()}

    def _stop(self) -> None:
        """Publisher, log, computation, broker: nothing is on its way where the next one ends."""
        self._display.show("stopping")
        deadline = time.monotonic() + STOP_S
        for child in (*self._simulators(), *self._dagster.daemon(), *self._pages.children()):
            child.terminate()
        stop_together(self._simulators(), time.monotonic() + _SIMULATOR_STOP_S)
        stop_together([self._buffer], time.monotonic() + _BUFFER_STOP_S)
        # a batch that is cut off is done again, but leaves a failed run behind
        psutil.wait_procs(self._dagster.working(), timeout=_RUNS_END_S)
        ending = (*self._pages.children(), *self._dagster.children(), self._broker)
        stop_together(ending, deadline)
        reap(_REAP_S)

    def _make(self, command: Command) -> Child:
        return Child(command, self._home.logs, self._display.say)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop it in order; a second one changes nothing."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, former in before.items():
                signal.signal(number, former)
