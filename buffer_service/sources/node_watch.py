"""What a Sparkplug edge node has said: whether births explain its data, and what is missing."""

import time
from typing import Final, NamedTuple

from iiot_platform.core import sparkplug
from iiot_platform.core.sparkplug import Payload, Topic

OVERTAKEN_S: Final = 1.0
"""How much later than the birth of its device that of a node may come: less than whoever reads the
log allows, so that a birth which does not count there is asked for here."""
_SEQ_OF_BIRTH: Final = 0


class _Born(NamedTuple):
    """A birth: its metrics, their aliases, and what tells whether it has overtaken the node's."""

    marks: frozenset[int | str]
    seq: int | None
    timestamp: int | None
    heard_s: float

    def has_overtaken(self, node: Payload, now_s: float) -> bool:
        """True where it was written after the birth of its node, and came shortly before it."""
        if self.timestamp is None or node.timestamp is None:
            return False
        return self.timestamp >= node.timestamp and now_s - self.heard_s <= OVERTAKEN_S


class NodeWatch:
    """What one edge node has said: are there births for its data, and did all messages come?

    Args:
        counted: every message of the node is heard, so that a hole in `seq` is one.
    """

    def __init__(self, *, counted: bool) -> None:
        self._counted = counted
        self._born: dict[str, _Born] = {}
        self._next_seq: int | None = None
        self.missing: set[int] = set()
        """`seq` of messages that others have overtaken, or that are lost."""
        self._bd_seq: int | None = None

    def forget(self) -> None:
        """Some messages may have been missed."""
        self._born.clear()
        self.skip()

    def skip(self) -> None:
        """Some messages were not looked at."""
        self._next_seq = None
        self.missing.clear()

    def trouble(self, topic: Topic, payload: Payload) -> str | None:
        """Takes a message; tells why births are missing, None where they are not."""
        if topic.type == "NDEATH":
            if None in {self._bd_seq, payload.bd_seq} or self._bd_seq == payload.bd_seq:
                self.forget()
            return None
        if topic.type == "NBIRTH":
            self._begin(payload)
        elif payload.seq is not None and self._counted:
            self._count(payload.seq)
        if topic.type in {"NBIRTH", "DBIRTH"}:
            self._bear(topic.device, payload)
            return None
        if topic.type == "DDEATH":
            self._born.pop(topic.device, None)
            return None
        known = self._born.get(topic.device)
        if known is None or "" not in self._born:
            return f"no birth of '{topic.name}' was heard"
        for metric in payload.metrics:
            if metric.alias not in known.marks and metric.name not in known.marks:
                mark = metric.name if metric.alias is None else metric.alias
                return f"'{topic.name}' has sent metric {mark!r:.80}, which no birth has named"
        return None

    def _bear(self, device: str, birth: Payload) -> None:
        marks = frozenset(
            mark
            for metric in birth.metrics
            for mark in (metric.alias, metric.name)
            if mark is not None
        )
        self._born[device] = _Born(marks, birth.seq, birth.timestamp, time.monotonic())
        if "" not in self._born:
            self.missing.add(_SEQ_OF_BIRTH)

    def _begin(self, birth: Payload) -> None:
        """The node is born, and with it the devices whose births have overtaken its own."""
        now_s = time.monotonic()
        kept = {name: one for name, one in self._born.items() if one.has_overtaken(birth, now_s)}
        self.forget()
        self._born.update(kept)
        self._bd_seq = birth.bd_seq
        if self._counted:
            self._count(_SEQ_OF_BIRTH)
            for seq in sorted(one.seq for one in kept.values() if one.seq is not None):
                self._count(seq)

    def _count(self, seq: int) -> None:
        if seq in self.missing:
            self.missing.discard(seq)  # it was only overtaken
            return
        expected = seq if self._next_seq is None else self._next_seq
        ahead = (seq - expected) % sparkplug.SEQ_LIMIT
        self.missing.update((expected + i) % sparkplug.SEQ_LIMIT for i in range(ahead))
        self._next_seq = (seq + 1) % sparkplug.SEQ_LIMIT
