"""The signals of a range of the log that can be read side by side, all topics at once."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from iiot_platform.core.errors import DecodeError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.messages import MessageDecoder, Messages
from iiot_platform.engine.readings import NO_STATE, Bools, Floats, Ints, Readings
from iiot_platform.engine.signal_template import SignalTemplate, read_alike, template_of

_ENOUGH: Final = 32
"""Messages of a topic that repay looking for a template."""
_ROUNDS: Final = 3
"""Templates that are looked for in one topic."""


class _Pattern(NamedTuple):
    """What is known of a topic's signals before their value and time are read."""

    template: SignalTemplate
    key: SeriesKey
    misnamed: bool


def read_signals(messages: Messages, decoder: MessageDecoder) -> tuple[Bools, Readings]:
    """Which messages are signals that follow a template, and their readings, in order.

    They are what the decoder would have made of each message, and it counts them as its own.
    """
    n = len(messages)
    alike = np.zeros(n, np.bool_)
    series = np.zeros(n, np.int32)
    ts, values = np.zeros(n, np.int64), np.zeros(n)
    keys: dict[SeriesKey, int] = {}
    rest = np.arange(n)
    for _ in range(_ROUNDS):
        rest, patterns = _patterns(messages, decoder, rest)
        if not patterns:
            break
        found = _Found.of(messages, rest, patterns)
        in_time = decoder.in_time(found.ts, messages.received[found.rows])
        rows = found.rows[in_time]
        alike[rows] = True
        ts[rows], values[rows] = found.ts[in_time], found.values[in_time]
        codes = [keys.setdefault(pattern.key, len(keys)) for pattern in patterns.values()]
        which = found.which[in_time]
        series[rows] = np.array(codes, np.int32)[which]
        misnamed = np.array([pattern.misnamed for pattern in patterns.values()], np.bool_)
        decoder.misnamed += int(misnamed[which].sum())
        rest = rest[~alike[rest]]
    return alike, _readings(messages, np.flatnonzero(alike), tuple(keys), series, ts, values)


def _patterns(
    messages: Messages, decoder: MessageDecoder, rest: Ints
) -> tuple[Ints, dict[int, _Pattern]]:
    """A pattern for each topic whose first message has one; those without are left out of rest."""
    topic = messages.topic[rest]
    first = np.zeros(len(messages.topics), np.int64)
    first[topic[::-1]] = np.arange(len(rest))[::-1]
    enough = np.bincount(topic, minlength=len(first)) >= _ENOUGH
    found: dict[int, _Pattern] = {}
    without = []
    for code in np.flatnonzero(enough).tolist():
        name = messages.topics[code]
        template = template_of(messages.payloads[rest[first[code]]])
        try:
            key = decoder.signal_key(name)
        except DecodeError:
            continue
        if template is None:
            without.append(first[code])
        else:
            found[code] = _Pattern(template, key, decoder.is_misnamed(name, template.header))
    return np.delete(rest, without), found


class _Found(NamedTuple):
    """Messages that follow their topic's pattern: which one, and the two numbers."""

    rows: Ints
    which: Ints
    ts: Ints
    values: Floats

    @classmethod
    def of(cls, messages: Messages, rest: Ints, patterns: dict[int, _Pattern]) -> "_Found":
        """Those of `rest`."""
        number = np.full(len(messages.topics), -1, np.int64)
        number[list(patterns)] = np.arange(len(patterns))
        which = number[messages.topic[rest]]
        rows, which = rest[which >= 0], which[which >= 0]
        whole = len(rows) == len(messages)
        texts = messages.texts if whole else messages.texts.take(pa.array(rows))
        found = read_alike(texts, which, [pattern.template for pattern in patterns.values()])
        return cls(rows[found.follows], which[found.follows], found.ts, found.values)


def _readings(
    messages: Messages,
    rows: Ints,
    keys: tuple[SeriesKey, ...],
    series: npt.NDArray[np.int32],
    ts: Ints,
    values: Floats,
) -> Readings:
    n = len(rows)
    readings = Readings(
        keys=keys,
        series=series[rows],
        ts=ts[rows],
        offset=messages.offset[rows],
        sub=np.zeros(n, np.int16),
        received=messages.received[rows],
        topics=messages.topics,
        topic=messages.topic[rows],
        quality=messages.quality[rows],
        state=np.full(n, NO_STATE, np.int64),
        pulse=np.full(n, -1, np.int8),
        first=np.arange(n + 1, dtype=np.int64),
        values=values[rows],
        payload_hash=messages.payload_hash[rows],
    )
    return readings.with_keys_in_order()
