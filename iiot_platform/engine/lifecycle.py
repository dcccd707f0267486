"""Births and deaths of Sparkplug edge nodes: what data at an offset mean is what was said before.

A message at offset o is read with the births and deaths of lower offsets, whoever asks and in
whatever cuts. Those within a range of the log stand in it; those before it are kept in the ledger,
written with the batch that found them, and outlive the raw records.

What decides about offset o reaches back to the node's last but one birth before o and no further,
so that a few look-ups find all of it; a device that died before that leaves no gap behind.

A broker may keep the order within each topic alone. A device's birth that has overtaken that of its
node, which the times in both tell, is taken for what it is: one of the node's new session.
"""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from iiot_platform.core import sparkplug
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.sparkplug import Payload, Topic, topic_of

OVERTAKEN_MS: Final = 2_000
"""How much later than the birth of its device that of a node may come."""
_REMEMBERED: Final = 256


class Event(NamedTuple):
    """A birth or a death as the log has it; `received` in Unix ms."""

    offset: int
    topic: str
    received: int
    payload: bytes

    @property
    def source(self) -> Topic:
        """Whose it is."""
        found = topic_of(self.topic)
        if found is None:
            raise ValueError(f"'{self.topic}' is no topic of a birth or death")
        return found


class History(Protocol):
    """Where births and deaths before a range of the log are looked up."""

    def events(self, nodes: Iterable[str], lo: int, hi: int) -> list[Event]:
        """What offsets [lo, hi) need of these nodes, as far as it is known, in any order."""


class NoHistory:
    """A log that begins with the records at hand."""

    def events(self, nodes: Iterable[str], lo: int, hi: int) -> list[Event]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return []


class Birth(NamedTuple):
    """What a birth defines: name and data type by alias, data type by name."""

    offset: int
    by_alias: Mapping[int, tuple[str, int]]
    by_name: Mapping[str, int]


@functools.lru_cache(_REMEMBERED)
def _read(payload: bytes) -> Payload | None:
    try:
        return sparkplug.decode(payload)
    except DecodeError:
        return None


def is_readable(event: Event) -> bool:
    """True where a birth or death says something."""
    return _read(event.payload) is not None


class NodeLife:
    """The births and deaths of one edge node and its devices, as far as they are known.

    Args:
        events: of one node, readable.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._births: list[Event] = []
        self._deaths: list[Event] = []
        self._devices: dict[str, list[Event]] = {}
        for event in sorted(events):
            source = event.source
            if source.device:
                self._devices.setdefault(source.device, []).append(event)
            else:
                (self._births if source.type == "NBIRTH" else self._deaths).append(event)
        self._read: dict[int, Birth] = {}

    def birth(self, device: str, offset: int) -> Birth | None:
        """What data at an offset are read with; None: the device is not born, or dead.

        A device is born again after each birth of its node.
        """
        session = _before(self._births, offset)
        event = session if not device else _before(self._devices.get(device, []), offset)
        if event is None or event.source.type == "DDEATH":
            return None
        if session is not None and event.offset < session.offset:
            earlier = _before(self._births, session.offset)
            if earlier is not None and event.offset < earlier.offset:
                return None
            if not _has_overtaken(event, session):
                return None
        return self._definitions(event)

    def counts(self, death: Event) -> bool:
        """False where the death of a node is of an earlier session than its last birth."""
        birth = _before(self._births, death.offset)
        ids = {
            payload.bd_seq
            for event in (birth, death)
            if event is not None and (payload := _read(event.payload)) is not None
        }
        return None in ids or len(ids) == 1

    def alive(self, offset: int) -> list[str]:
        """The devices that are born and not dead before an offset."""
        return sorted(name for name in self._devices if self.birth(name, offset) is not None)

    def dead_since(self, birth: Event) -> Event | None:
        """The death that a birth ends; None where there was none."""
        device = birth.source.device
        session = _before(self._births, birth.offset)
        if not device:
            return self._first_death(-1 if session is None else session.offset, birth.offset)
        earlier = None if session is None else _before(self._births, session.offset)
        begin = -1 if earlier is None else earlier.offset
        last = _before(self._devices.get(device, []), birth.offset)
        if last is None or last.offset < begin:
            return None
        if last.source.type == "DDEATH":
            return last
        if session is None or last.offset > session.offset:
            return self._first_death(last.offset, birth.offset)
        return self._first_death(last.offset, session.offset)

    def _first_death(self, lo: int, hi: int) -> Event | None:
        return next((e for e in self._deaths if lo < e.offset < hi and self.counts(e)), None)

    def _definitions(self, event: Event) -> Birth:
        found = self._read.get(event.offset)
        if found is None:
            payload = _read(event.payload)
            by_alias: dict[int, tuple[str, int]] = {}
            by_name: dict[str, int] = {}
            for metric in () if payload is None else payload.metrics:
                if metric.name:
                    by_name[metric.name] = metric.datatype or 0
                    if metric.alias is not None:
                        by_alias[metric.alias] = metric.name, metric.datatype or 0
            found = self._read[event.offset] = Birth(event.offset, by_alias, by_name)
        return found


def _has_overtaken(device: Event, node: Event) -> bool:
    """True where a device's birth was written after that of its node, and came just before it."""
    births = _read(device.payload), _read(node.payload)
    of_device, of_node = (None if each is None else each.timestamp for each in births)
    if of_device is None or of_node is None or of_device < of_node:
        return False
    return node.received - device.received <= OVERTAKEN_MS


def _before(events: list[Event], offset: int) -> Event | None:
    place = bisect_left(events, offset, key=lambda event: event.offset)
    return events[place - 1] if place else None
