"""`iiot alerts run`: evaluates every few seconds and tells, through restarts and outages."""

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import msgspec

from iiot_platform.alerts.courier import Courier
from iiot_platform.alerts.evaluation import Advance, Alert, LineState, advance, ticks_between
from iiot_platform.alerts.lifecycle import STEP_MS
from iiot_platform.alerts.message import Places, alert_id, body, moment, summary, topic
from iiot_platform.alerts.mqtt import MqttAnnouncer
from iiot_platform.alerts.reading import frames, heard_before
from iiot_platform.alerts.samples import samples
from iiot_platform.alerts.status_samples import (
    connected,
    drops_until,
    status_samples,
)
from iiot_platform.alerts.store import (
    CLEAR,
    MQTT,
    STATUS_SCOPE,
    TABLES_SCOPE,
    WEBHOOK,
    AlertStore,
    Outgoing,
)
from iiot_platform.alerts.webhook import WebhookPoster
from iiot_platform.client import Client
from iiot_platform.config.maintenance import MaintenanceCalendar
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_watch import PlantWatch
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S, now_ms
from iiot_platform.core.errors import ConfigError, PlatformError, StorageError
from iiot_platform.core.paths import Home
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.status import BufferState, LineStatus, PlantStatus, StatusReader

logger = logging.getLogger(__name__)

BEGIN_BEFORE_MS: Final = 600 * MS_PER_S
"""The first start looks back so far."""
CATCH_UP_MS: Final = 24 * MS_PER_HOUR
"""After a longer stop the time before is left out."""
WAIT_MS: Final = MS_PER_HOUR
"""How long the evaluation of a line waits for a source that is away, whose data may still come."""
QUEUE_LIMIT: Final = 10_000
"""Messages of one receiver that may wait; evaluation rests at it, the tables keep what it reads."""
_POST: Final = 100
_LEFT: Final = "the line has left the plant"


class AlertService:
    """Evaluates the alerts of a plant; `step` it, or `run` it until it is stopped.

    Args:
        home: tables, ledger, log and the alerts' own state.
        plant: lines, sources, rules and receivers.
        places: where to look, for the messages.
        clock: Unix ms.
    """

    def __init__(
        self, home: Home, plant: Plant, places: Places, *, clock: Callable[[], int] = now_ms
    ) -> None:
        self._home = home
        self._plant = plant
        self._places = places
        self._clock = clock
        self._settings = plant.alerts
        self._calendar = MaintenanceCalendar(plant.alerts.maintenance, plant.timezone)
        self._store = AlertStore(home.alerts)
        self._states = self._store.states()
        self._status = StatusReader(home, plant.line_names)
        self._client: Client | None = None
        self._connected_ms: dict[str, int] = {}
        self._told_problem = ""
        self._couriers: list[Courier] = []
        self._forget_lines()

    def close(self) -> None:
        """Stops the couriers and closes everything."""
        self._stop_couriers()
        self._status.close()
        if self._client is not None:
            self._client.close()
        self._store.close()

    @property
    def targets(self) -> list[str]:
        """Who is told."""
        mqtt = self._settings.mqtt.enabled and self._plant.alert_topic_problem is None
        return [MQTT] * mqtt + [WEBHOOK] * (self._settings.webhook is not None)

    def start(self) -> None:
        """Starts the couriers."""
        targets = self.targets
        problem = self._plant.alert_topic_problem
        if self._settings.mqtt.enabled and problem is not None:
            logger.warning("no alerts over MQTT: %s", problem.text)
        dropped = self._store.drop_targets([*targets, *([CLEAR] if MQTT in targets else [])])
        if dropped:
            logger.warning("%d messages dropped: their receiver is switched off", dropped)
        if MQTT in targets:
            self._couriers.append(self._mqtt_courier())
        if WEBHOOK in targets:
            self._couriers.append(self._webhook_courier())
        for courier in self._couriers:
            courier.start()

    def follow(self, plant: Plant) -> None:
        """Takes up a changed plant: its lines, sources, rules, maintenance windows and receivers.

        Alerts of lines that have left it are over. What waits for a receiver that is still there
        waits on.
        """
        before, self._plant = self._plant, plant
        self._settings = plant.alerts
        self._places = replace(self._places, plant=plant.name)
        self._calendar = MaintenanceCalendar(plant.alerts.maintenance, plant.timezone)
        self._status.close()
        self._status = StatusReader(self._home, plant.line_names)
        others = _receivers(plant) != _receivers(before)
        if others:
            # first: what the change itself has to tell is for those who are told from now on
            self._stop_couriers()
        self._forget_lines()
        if others:
            self.start()
        logger.info("the plant has changed: alerts of %s", ", ".join(plant.line_names))

    def run(
        self,
        stop: threading.Event,
        watch: PlantWatch | None = None,
        hung_up: threading.Event | None = None,
    ) -> None:
        """Evaluates until it is stopped.

        Args:
            stop: ends it.
            watch: follows the plant file; None: the plant stays as it is.
            hung_up: set where the file is to be read at once.
        """
        self.start()
        while not stop.is_set():
            try:
                if watch is not None:
                    self._look(watch, hung_up)
                self.step()
                self._told_problem = ""
            except PlatformError as error:
                if str(error) != self._told_problem:
                    self._told_problem = str(error)
                    logger.warning("alerts can not be evaluated: %s", error)
            stop.wait(self._settings.every_s)

    def step(self) -> None:
        """Evaluates everything once, as far as the data goes.

        Raises:
            StorageError: state, tables or ledger can not be read.
        """
        waiting = self._store.waiting()
        full = [name for name in self.targets if waiting.get(name, 0) >= QUEUE_LIMIT]
        if full:
            raise StorageError(
                f"{QUEUE_LIMIT} messages wait for {', '.join(full)}: evaluation rests until the"
                " receiver is back, and goes on from where it stands"
            )
        status = self._status.read()
        for line in status.lines:
            if line.line in self._plant.line_names:
                self._step_status(line, status.buffer)
                self._step_tables(line, status)

    def _look(self, watch: PlantWatch, hung_up: threading.Event | None) -> None:
        at_once = hung_up is not None and hung_up.is_set()
        if hung_up is not None:
            hung_up.clear()
        changed = watch.look(at_once=at_once)
        if changed is not None and changed != self._plant:
            self.follow(changed)

    def _forget_lines(self) -> None:
        """Ends what is told of lines that the plant does not have, and forgets them."""
        gone = [key for key in self._states if key[0] not in self._plant.line_names]
        for key in gone:
            state, now = self._states.pop(key), self._clock()
            over = [
                msgspec.structs.replace(one, state="resolved", resolved_ms=now, reason=_LEFT)
                for one in state.firing
                if one.key in state.told
            ]
            self._store.save(*key, state, self._messages(key[0], [*state.owed, *over]), now)
        for line in {line for line, _ in gone}:
            self._store.forget(line)
            self._connected_ms.pop(line, None)
        self._wake_couriers()

    def _wake_couriers(self) -> None:
        for courier in self._couriers:
            courier.wake()

    def _stop_couriers(self) -> None:
        for courier in self._couriers:
            courier.stop()
        self._couriers.clear()

    def _step_status(self, line: LineStatus, buffer: BufferState) -> None:
        key = (line.line, STATUS_SCOPE)
        now = self._clock()
        state = self._states.get(key) or LineState(now - 1)
        if now <= state.at_ms:
            return
        source = self._plant.source_of(line.line).name
        drops = drops_until(state.drops, now, line.line, buffer, source, self._settings)
        found = advance(
            state,
            status_samples(line, buffer, source, self._settings, drops),
            range(now, now + 1),
            self._calendar.spans(line.line, state.at_ms, now + 1),
            self._settings,
            drops=drops,
        )
        self._keep(key, found)

    def _step_tables(self, line: LineStatus, status: PlantStatus) -> None:
        name = line.line
        client = self._opened()
        if client is None or name not in client.lines():
            return
        key = (name, TABLES_SCOPE)
        until = self._horizon(line, status.buffer)
        state = self._states.get(key)
        oldest = until - CATCH_UP_MS
        if state is None or state.at_ms < oldest:
            state = self._begun(client, name, state, until)
        while moments := ticks_between(state.at_ms, min(until, state.at_ms + MS_PER_HOUR)):
            data = frames(client, name, moments, self._settings)
            values, heard = samples(name, data, moments, self._settings, state.heard)
            held = self._calendar.spans(name, state.at_ms, moments[-1] + 1)
            found = advance(state, values, moments, held, self._settings, heard)
            self._keep(key, found)
            state = found.state

    def _begun(self, client: Client, line: str, state: LineState | None, until: int) -> LineState:
        back = BEGIN_BEFORE_MS if state is None else CATCH_UP_MS
        at = (until - back) // STEP_MS * STEP_MS
        heard = heard_before(client, line, at, self._settings)
        if state is None:
            return LineState(at, heard=heard)
        logger.warning("%s: what lies before %s is not evaluated any more", line, moment(at))
        return msgspec.structs.replace(state, at_ms=at, heard=heard)

    def _opened(self) -> Client | None:
        if self._client is None and Ledger.is_at(self._home):
            self._client = Client(self._home)
        return self._client

    def _horizon(self, line: LineStatus, buffer: BufferState) -> int:
        """Up to when the tables hold all that was captured of a line, as far as can be known."""
        now = self._clock()
        source = self._plant.source_of(line.line).name
        if buffer.written_ms is None or (buffer.running and connected(buffer, source)):
            self._connected_ms[line.line] = now
        known = self._connected_ms.get(line.line, buffer.written_ms or now)
        known = max(known, now - WAIT_MS)
        return min(known, now - round(line.lag_s * MS_PER_S)) - round(
            self._settings.delay_s * MS_PER_S
        )

    def _keep(self, key: tuple[str, str], found: Advance) -> None:
        line, scope = key
        told = [alert for _, alert in found.told]
        messages = self._messages(line, told)
        self._store.save(line, scope, found.state, messages, self._clock())
        self._states[key] = found.state
        for alert in told:
            logger.info("%s: %s", alert.state, summary(alert))
        if messages:
            self._wake_couriers()

    def _messages(self, line: str, told: Sequence[Alert]) -> list[Outgoing]:
        """One message per alert over MQTT, one per line and step to the webhook."""
        found, targets = [], self.targets
        if MQTT in targets:
            root = self._settings.mqtt.root
            for alert in told:
                content = msgspec.json.encode(body(alert, self._places))
                over = alert.state == "resolved"
                found.append(Outgoing(MQTT, alert_id(alert), topic(root, alert.key), content, over))
        if WEBHOOK in targets:
            for start in range(0, len(told), _POST):
                part = told[start : start + _POST]
                first = alert_id(part[0])
                content = msgspec.json.encode(
                    {
                        "version": 1,
                        "id": first,
                        "plant": self._places.plant,
                        "line": line,
                        "alerts": [body(alert, self._places) for alert in part],
                    }
                )
                found.append(Outgoing(WEBHOOK, first, "", content, resolved=False))
        return found

    def _mqtt_courier(self) -> Courier:
        source, mqtt = self._plant.alert_broker, self._settings.mqtt
        if source is None:
            raise ConfigError("the plant has no broker")
        client_id = mqtt.client_id or f"{source.client_id}-alerts"
        return Courier(
            "the broker",
            (MQTT, CLEAR),
            self._home.alerts,
            lambda: MqttAnnouncer(source, client_id),
            clock=self._clock,
            keep_resolved_s=mqtt.keep_resolved_s,
        )

    def _webhook_courier(self) -> Courier:
        webhook = self._settings.webhook
        if webhook is None:
            raise ConfigError("the plant has no webhook")
        return Courier(
            "the webhook",
            (WEBHOOK,),
            self._home.alerts,
            lambda: WebhookPoster(webhook),
            clock=self._clock,
        )


def _receivers(plant: Plant) -> tuple[object, ...]:
    """What couriers are made of."""
    alerts, problem = plant.alerts, plant.alert_topic_problem
    return alerts.mqtt, alerts.webhook, plant.alert_broker, problem is None


@contextmanager
def sole_service(home: Home) -> Iterator[None]:
    """Holds the lock of the service for the length of a block.

    Raises:
        StorageError: another process holds it.
    """
    path = home.alerts.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"'{path}' is locked: another 'iiot alerts run' serves this home"
            ) from error
        yield
