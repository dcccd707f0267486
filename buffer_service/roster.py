"""The sources of a plant, and how they follow when it changes."""

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from buffer_service.sessions_left import SessionsLeft
from buffer_service.sources.event_loop import EventLoopThread
from buffer_service.sources.mqtt import MqttReceiver
from buffer_service.sources.mqtt_routing import SHARED, prefix_of
from buffer_service.sources.mqtt_subscriptions import subscriptions_file
from buffer_service.sources.sparkplug_rebirth import RebirthCompanion
from buffer_service.status import away_since
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.config.sparkplug import SparkplugNodes
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home

if TYPE_CHECKING:
    from buffer_service.delivery import Source


class Roster:
    """The sources of a plant, made and not started.

    Args:
        home: where the capture log lies.
        plant: sources and lines.
        wake: set when a source wants an early commit.
    """

    def __init__(self, home: Home, plant: Plant, wake: threading.Event) -> None:
        self._home = home
        self._wake = wake
        self._loop = EventLoopThread()
        self._away = away_since(home.capture)
        self._released: set[str] = set()
        self._sessions_left = SessionsLeft(home.capture)
        self._sessions_left.begin(plant)
        self.plant = plant
        """The plant that the sources follow."""
        self.sources: tuple[Source, ...] = tuple(
            self._make(plant, settings) for settings in plant.sources
        )

    def release(self, plant: Plant) -> bool:
        """Stop the sources that can not go on as they are under another plant; False: all can."""
        staying = set(_staying(self.plant, plant))
        leaving = [source for source in self.sources if source.name not in staying]
        for source in leaving:
            if source.name not in self._released:
                state, _, since_ms, counts = source.status
                if counts.get("session", 1):
                    self._away[source.name] = now_ms() if state == "connected" else since_ms
                self._released.add(source.name)
                source.stop()
        return bool(leaving)

    def follow(self, plant: Plant) -> None:
        """Take up another plant; what it releases is stopped, and nothing of that waits.

        Sources that stay take their lines while they run; new ones are started.
        """
        staying = set(_staying(self.plant, plant)) - self._released
        before = {source.name: source for source in self.sources}
        now: list[Source] = []
        for settings in plant.sources:
            if settings.name not in staying:
                source = self._make(plant, settings)
                source.start()
            else:
                source = before[settings.name]
                if isinstance(source, MqttReceiver) and isinstance(settings, MqttSource):
                    source.take(*_subscribed(plant, settings), _asked(plant, settings))
            now.append(source)
        self._sessions_left.follow(plant, self._had_sessions(before))
        self.plant = plant
        self.sources = tuple(now)
        self._released.clear()

    def _had_sessions(self, sources: "Mapping[str, Source]") -> Iterator[MqttSource]:
        """The brokers of the plant until now that have let us in."""
        for settings in self.plant.sources:
            if isinstance(settings, MqttSource):
                source = sources[settings.name]
                if source.status.counts["session"]:
                    yield settings

    def _make(self, plant: Plant, settings: MqttSource | OpcUaSource) -> "Source":
        if isinstance(settings, MqttSource):
            streams, filters = _subscribed(plant, settings)
            return MqttReceiver(
                settings,
                streams=streams,
                filters=filters,
                on_pressure=self._wake.set,
                subscriptions=subscriptions_file(self._home.capture, settings.name),
                away_since_ms=self._away.get(settings.name),
                companion=RebirthCompanion(settings, _asked(plant, settings)),
            )
        # costs a third of a second that a plant without OPC UA need not wait
        from buffer_service.sources.opcua import OpcUaReceiver  # noqa: PLC0415 - as said
        from buffer_service.sources.opcua_nodes import LineRoute  # noqa: PLC0415

        return OpcUaReceiver(
            settings,
            routes={
                line.name: LineRoute(line.name, line.topic_prefix)
                for line in plant.lines_of(settings.name)
            },
            pki=self._home.capture / "pki",
            loop=self._loop,
            on_pressure=self._wake.set,
            away_since_ms=self._away.get(settings.name),
        )


def _staying(old: Plant, new: Plant) -> Iterator[str]:
    """Sources that go on: their settings are the same, and OPC UA's lines too."""
    settings = {source.name: source for source in new.sources}
    for source in old.sources:
        if settings.get(source.name) != source:
            continue
        if isinstance(source, MqttSource) or _outline(old, source) == _outline(new, source):
            yield source.name


def _outline(plant: Plant, source: OpcUaSource) -> dict[str, str]:
    return {line.name: line.topic_prefix for line in plant.lines_of(source.name)}


def _subscribed(plant: Plant, settings: MqttSource) -> tuple[dict[str, str], list[str]]:
    """Topic prefix to line, and the topic filters that bring the lines."""
    lines = [plant.line_settings(line.name) for line in plant.lines_of(settings.name)]
    group = "" if settings.shared_group is None else f"{SHARED}{settings.shared_group}/"
    filters = [(each, line.line) for line in lines for each in line.topic_filters]
    return (
        {prefix_of(each): line for each, line in filters},
        [f"{group}{each}" for each, _ in filters],
    )


def _asked(plant: Plant, settings: MqttSource) -> list[SparkplugNodes]:
    """The Sparkplug nodes that may be asked for their births."""
    lines = (line.sparkplug for line in plant.lines_of(settings.name))
    return [nodes for one in lines if one is not None and one.rebirth for nodes in one.nodes]
