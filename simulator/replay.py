"""Publishes a recording as a machine of signals."""

import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from threading import Event
from typing import Annotated, Final, NamedTuple

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from simulator.broker_link import BrokerAddress
from simulator.labels import WHOLE_MACHINE, Label
from simulator.plant import Chunk, DueLabel, Message
from simulator.publisher import Publisher
from simulator.recording import DEFAULT_LABEL_COLUMNS, Recording, read_recording
from simulator.scenario import Level
from simulator.stats import SimulatorFiles, Stats, now_ms

_ROWS_PER_CHUNK: Final = 500
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)x?")
_MAX: Final = "max"


def _rate(text: str) -> str:
    match = _RATE.fullmatch(text)
    if text != _MAX and (match is None or not float(match[1])):
        raise ValueError(f"'{text}' is no rate; '1x', '20x' or 'max' is expected")
    return text


class ReplayOptions(BaseModel):
    """How a recording is replayed.

    Attributes:
        rate: `20x`: twenty times as fast as recorded; `max`: as fast as the broker takes it.
        shift_to_now: the recording takes place now: a row's time is the moment at which it is
            published (at 20x differences shrink twentyfold). With `max`, which has no pace, the
            recording is moved whole, so that it ends now. Without it times are as recorded.
        timezone: zone of times that carry none; default UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    csv: Path
    line: Level
    machine: Level
    rate: Annotated[str, AfterValidator(_rate)] = "1x"
    shift_to_now: bool = False
    timezone: str | None = None
    time_column: str | None = None
    label_columns: tuple[str, ...] = DEFAULT_LABEL_COLUMNS
    delimiter: str | None = None
    decimal_comma: bool = False
    home: Path = Path("var")
    broker: BrokerAddress = BrokerAddress()

    @property
    def speed(self) -> float | None:
        """How many times faster than recorded; None: as fast as possible."""
        return None if self.rate == _MAX else float(self.rate.removesuffix("x"))


class _Timed(NamedTuple):
    """When each row is published, and the time it carries."""

    due_ms: list[int]
    event_ms: list[int]


def replay(
    options: ReplayOptions,
    *,
    stop: Event | None = None,
    on_progress: Callable[[Stats], None] | None = None,
) -> Stats:
    """Publish a recording once, until its end or until `stop` is set.

    Raises:
        RecordingError: the recording can not be read.
        SimulatorError: the home can not be used, or the broker refuses the credentials.
    """
    recording = read_recording(
        options.csv,
        time_column=options.time_column,
        label_columns=options.label_columns,
        timezone=options.timezone,
        delimiter=options.delimiter,
        decimal_comma=options.decimal_comma,
    )
    stats = Stats(
        source=f"recording {options.csv.name}",
        skipped=recording.skipped,
        renamed=recording.renamed,
    )
    timed = _timed(recording.times_ms, options, start_ms=now_ms())
    with Publisher(
        options.broker,
        files=SimulatorFiles(options.home),
        stats=stats,
        stop=stop or Event(),
        on_progress=on_progress,
    ) as publisher:
        publisher.play(
            chunks(recording, options, timed), paced=options.speed is not None, until_live_s=None
        )
    return stats


def _timed(times_ms: list[int], options: ReplayOptions, *, start_ms: int) -> _Timed:
    first, speed = times_ms[0], options.speed
    if speed is None:
        shift_ms = start_ms - max(times_ms) if options.shift_to_now else 0
        event = [t + shift_ms for t in times_ms]
        return _Timed(list(accumulate(event, max)), event)
    due = [start_ms + round((t - first) / speed) for t in times_ms]
    # a row that lies before the one above it is published right after that one
    return _Timed(list(accumulate(due, max)), due if options.shift_to_now else times_ms)


def chunks(recording: Recording, options: ReplayOptions, timed: _Timed) -> Iterator[Chunk]:
    """The recording's messages and labels, in the order of its rows."""
    labels = _labels(recording, options, timed)
    topics = {name: f"{options.line}/{options.machine}/{name}" for name in recording.signals}
    for begin in range(0, len(timed.due_ms), _ROWS_PER_CHUNK):
        rows = range(begin, min(begin + _ROWS_PER_CHUNK, len(timed.due_ms)))
        messages = [
            Message(timed.due_ms[i], options.line, topic, _payload(options, name, value, event))
            for i in rows
            for event in (timed.event_ms[i],)
            for name, topic in topics.items()
            if (value := recording.signals[name][i]) is not None
        ]
        yield Chunk(messages, [label for row, label in labels if row in rows])


def _payload(options: ReplayOptions, name: str, value: float, event_ms: int) -> bytes:
    return msgspec.json.encode(
        {
            "LineName": options.line,
            "MachineName": options.machine,
            "SensorName": name,
            "SensorValue": value,
            "TimeStamp": event_ms,
        }
    )


def _labels(
    recording: Recording, options: ReplayOptions, timed: _Timed
) -> list[tuple[int, DueLabel]]:
    """Each run of labelled rows as one label, with the row in which it begins."""
    found: list[tuple[int, DueLabel]] = []
    for column, marked in recording.labels.items():
        begin = None
        for i, mark in enumerate([*marked, False]):
            if mark and begin is None:
                begin = i
            elif not mark and begin is not None:
                event_ms = timed.event_ms[begin:i]
                label = Label(
                    line=options.line,
                    machine=options.machine,
                    device=WHOLE_MACHINE,
                    series=WHOLE_MACHINE,
                    kind="signal",
                    fault=column,
                    start_ms=min(event_ms),
                    end_ms=max(event_ms) + 1,
                    ts_ms=tuple(event_ms),
                )
                found.append((begin, DueLabel(timed.due_ms[begin], label)))
                begin = None
    return sorted(found, key=lambda one: one[0])
