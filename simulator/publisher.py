"""Plays a stream of chunks to the broker: paced, counted, and stopped in order."""

import time
from collections.abc import Callable, Iterable
from threading import Event
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from simulator.broker_link import BrokerAddress, BrokerLink
from simulator.plant import Chunk, DueLabel, Message
from simulator.stats import SimulatorFiles, Stats, now_ms

DRAIN_TIMEOUT_S: Final = 10.0
CAUGHT_UP_MS: Final = 500
"""A stream that is less behind than this is live."""
_STATS_INTERVAL_S: Final = 1.0
_LONGEST_STEP_S: Final = 0.1
_STEP_EVERY: Final = 100
"""Messages sent at most before the socket is served."""


class _Sent(NamedTuple):
    due_ms: int
    line: str
    live: bool


class Publisher:
    """Publishes chunks in the order in which they are due.

    Args:
        address: the broker.
        files: where counts and labels go.
        stats: counts, kept up to date.
        stop: set from elsewhere to stop in order.
        on_progress: called about once a second, and at the end, after the counts were updated.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        files: SimulatorFiles,
        stats: Stats,
        stop: Event,
        on_progress: Callable[[Stats], None] | None = None,
    ) -> None:
        self._link: BrokerLink[_Sent] = BrokerLink(address, self._acknowledged)
        self._files = files
        self._stats = stats
        self._stop = stop
        self._on_progress = on_progress
        self._labels: BinaryIO | None = None
        self._next_ms = stats.position_ms
        self._last_sent_ms: int | None = None
        self._unserved = 0
        self._next_report_s = 0.0
        self._reported = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        self._labels = self._files.labels.open("ab", buffering=0)
        self._report(force=True)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is None:
                self._drain()
            self._link.close()
        finally:
            self._stats.phase = "stopped"
            self._report(force=True)
            if self._labels is not None:
                self._labels.close()

    def play(self, chunks: Iterable[Chunk], *, paced: bool, until_live_s: float | None) -> None:
        """Publish until the chunks end, the stop is set, or `until_live_s` of live time are over.

        Args:
            chunks: what to publish, in the order in which it is due.
            paced: a message is held back until it is due; else as fast as the broker takes it.
            until_live_s: length of the live part; None: no end.
        """
        for chunk in chunks:
            labels = iter([*chunk.labels, None])
            label = next(labels)
            for message in chunk.messages:
                due_ms = message.due_ms
                while label is not None and label.due_ms < due_ms:
                    self._write(label)
                    label = next(labels)
                # messages of one moment go together, so that the position is a moment
                if due_ms != self._last_sent_ms:
                    self._enter(due_ms, paced=paced)
                    if self._ended(due_ms, until_live_s) or not self._await(due_ms, paced=paced):
                        return
                if not self._await_room():
                    return
                self._send(message)
            while label is not None:
                self._write(label)
                label = next(labels)

    def _enter(self, due_ms: int, *, paced: bool) -> None:
        """Say which part of the stream a moment belongs to."""
        stats = self._stats
        self._next_ms = due_ms
        if not paced:
            stats.phase = "replay"
        elif stats.live_since_ms is None:
            stats.phase = "history"
            if now_ms() - due_ms <= CAUGHT_UP_MS:
                stats.phase = "live"
                stats.live_since_ms = due_ms

    def _ended(self, due_ms: int, until_live_s: float | None) -> bool:
        since = self._stats.live_since_ms
        return (
            since is not None
            and until_live_s is not None
            and (due_ms >= since + 1000 * until_live_s)
        )

    def _await(self, due_ms: int, *, paced: bool) -> bool:
        """Wait until a message is due; False where the stop comes first."""
        while not self._stop.is_set():
            early_s = (due_ms - now_ms()) / 1000 if paced else 0.0
            if early_s <= 0:
                return True
            self._step(min(early_s, _LONGEST_STEP_S))
        return False

    def _await_room(self) -> bool:
        """Wait until the broker takes one more message; False where the stop comes first."""
        while not self._link.ready:
            if self._stop.is_set() and not self._link.connected:
                return False
            self._step(_LONGEST_STEP_S)
        return True

    def _send(self, message: Message) -> None:
        stats = self._stats
        sent = _Sent(message.due_ms, message.line, live=stats.phase == "live")
        self._link.send(message.topic, message.payload, sent)
        stats.enqueued += 1
        self._last_sent_ms = message.due_ms
        self._unserved += 1
        if self._unserved >= _STEP_EVERY:
            self._step(0.0)

    def _acknowledged(self, sent: _Sent, accepted: bool) -> None:  # noqa: FBT001 - a callback
        stats = self._stats
        if not accepted:
            stats.refused += 1
            return
        stats.published += 1
        stats.published_per_line[sent.line] = stats.published_per_line.get(sent.line, 0) + 1
        if sent.live:
            stats.live += 1
        elif stats.phase != "replay":
            stats.history += 1

    def _write(self, label: DueLabel) -> None:
        if self._labels is not None:
            self._labels.write(label.label.encoded())
            self._stats.labels += 1

    def _drain(self) -> None:
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        while self._link.outstanding and time.monotonic() < deadline_s:
            self._step(_LONGEST_STEP_S)

    def _step(self, timeout_s: float) -> None:
        self._unserved = 0
        self._link.step(timeout_s)
        self._report(force=False)

    def _report(self, *, force: bool) -> None:
        now_s = time.monotonic()
        if not force and now_s < self._next_report_s:
            return
        self._next_report_s = now_s + _STATS_INTERVAL_S
        stats = self._stats
        before_s, before = self._reported
        if now_s > before_s:
            stats.rate_per_s = round((stats.published - before) / (now_s - before_s), 1)
        self._reported = (now_s, stats.published)
        oldest = self._link.oldest_outstanding
        stats.position_ms = self._next_ms if oldest is None else oldest.due_ms
        stats.outstanding = self._link.outstanding
        stats.connections = self._link.connections
        stats.updated_ms = now_ms()
        self._files.write_stats(stats)
        if self._on_progress is not None:
            self._on_progress(stats)
