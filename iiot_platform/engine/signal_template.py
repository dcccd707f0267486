"""Signals that differ in value and time alone, read side by side.

A device sends the same text again and again and changes two numbers in it. Where that is so, text
by text the same bytes stand around the two, what the general decoder says of one holds for all,
and only the numbers have to be read. What differs in anything else is left to the general decoder.
"""

import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.stride_tricks import sliding_window_view

from iiot_platform.core.errors import DecodeError
from iiot_platform.engine import payloads
from iiot_platform.engine.readings import Bools, Floats, Ints

_TIME_DIGITS: Final = 13
_ZEROS: Final = b"0" * _TIME_DIGITS
_LONGEST_VALUE: Final = 24
_END: Final = rb"(?=[ \t\r\n,}])"
_VALUE: Final = re.compile(rb'"SensorValue"[ \t\r\n]*:[ \t\r\n]*(-?[0-9][0-9.eE+-]*)' + _END)
_TIME: Final = re.compile(rb'"TimeStamp"[ \t\r\n]*:[ \t\r\n]*([1-9][0-9]{12})' + _END)
_TRIALS: Final = ((1.5, 1_000_000_000_001), (2.5, 2_000_000_000_002))
_EXPONENT: Final = "[eE][+-]?[0-9]{1,2}"
_WHOLE: Final = "[1-9][0-9]{0,14}"
_NUMBER: Final = rf"^(?:-?(?:0|{_WHOLE})(?:\.[0-9]+(?:{_EXPONENT})?|{_EXPONENT})|0|-?{_WHOLE})$"
"""Numbers that every reader of JSON and of floats takes for the same: finite, and no `-0`."""
_IN_A_NUMBER: Final = np.zeros(256, np.bool_)
_IN_A_NUMBER[list(b"0123456789.eE+-")] = True
_POWERS: Final = 10 ** np.arange(_TIME_DIGITS - 1, -1, -1, dtype=np.int64)

_Codes = npt.NDArray[np.integer]
_Bytes = npt.NDArray[np.uint8]


class SignalTemplate(NamedTuple):
    """The text around the value and the time of a signal's payloads.

    Attributes:
        head: what stands before the value; where the time is in it, zeros are its digits.
        tail: what stands behind the value, likewise.
        time_at: where the time begins: from the payload's begin, or negative from its end.
        header: the names in it, as the general decoder finds them.
    """

    head: bytes
    tail: bytes
    time_at: int
    header: payloads.Payload


class AlikeSignals(NamedTuple):
    """What payloads say that follow their template; ts and values of these alone."""

    follows: Bools
    ts: Ints
    values: Floats


def template_of(payload: bytes) -> SignalTemplate | None:
    """The template that a payload follows; None where it has to be decoded by itself.

    The two numbers are found by their names; that they are what the general decoder takes for
    value and time, and nothing else changes with them, is tried out with other numbers.
    """
    values, times = list(_VALUE.finditer(payload)), list(_TIME.finditer(payload))
    if len(values) != 1 or len(times) != 1:
        return None
    value, time = values[0].span(1), times[0].span(1)
    zeroed = payload[: time[0]] + _ZEROS + payload[time[1] :]
    head, tail = zeroed[: value[0]], zeroed[value[1] :]
    time_at = time[0] if time[0] < value[0] else time[0] - len(payload)
    header = None
    for number, ts in _TRIALS:
        trial = bytearray(head + str(number).encode() + tail)
        at = time_at % len(trial)
        trial[at : at + _TIME_DIGITS] = str(ts).encode()
        try:
            header, found = payloads.parse(bytes(trial))
        except DecodeError:
            return None
        if found or header.SensorValue != number or header.TimeStamp != ts:
            return None
    return None if header is None else SignalTemplate(head, tail, time_at, header)


def read_alike(
    texts: pa.BinaryArray, code: _Codes, templates: list[SignalTemplate]
) -> AlikeSignals:
    """Reads payloads, each by the template that `code` names.

    Args:
        texts: n payloads.
        code: int[n], index of the template that a payload may follow.
        templates: at least one.
    """
    ends, data = _buffers(texts)
    heads = np.array([len(t.head) for t in templates], np.int64)[code]
    tails = np.array([len(t.tail) for t in templates], np.int64)[code]
    time_at = np.array([t.time_at for t in templates], np.int64)[code]
    begin, end = ends[:-1] + heads, ends[1:] - tails
    long = end - begin
    follows = (long > 0) & (long <= _LONGEST_VALUE)
    follows[follows] = _no_other(data, begin[follows], long[follows])

    rows = np.flatnonzero(follows)
    if not len(rows):
        return AlikeSignals(follows, np.zeros(0, np.int64), np.zeros(0))
    data = data.copy()
    from_each = sliding_window_view(data, _TIME_DIGITS, writeable=True)
    time_from = np.where(time_at[rows] < 0, ends[1:][rows], ends[:-1][rows]) + time_at[rows]
    numerals = from_each[time_from] - np.uint8(ord("0"))
    is_time = (numerals <= 9).all(axis=1) & (numerals[:, 0] > 0)  # noqa: PLR2004 - a digit
    from_each[time_from[is_time]] = ord("0")

    numbers = _texts(data, begin[rows], long[rows])
    around = pc.binary_join_element_wise(
        _chosen([t.head for t in templates], code[rows]),
        numbers.cast(pa.binary()),
        _chosen([t.tail for t in templates], code[rows]),
        b"",
    )
    zeroed = pa.Array.from_buffers(
        pa.binary(), len(texts), [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data)]
    )
    same = pc.and_(
        pc.equal(around, zeroed.take(pa.array(rows))),
        pc.match_substring_regex(numbers, _NUMBER),
    )
    taken = is_time & same.to_numpy(zero_copy_only=False)
    follows[rows] = taken
    return AlikeSignals(
        follows,
        numerals[taken].astype(np.int64) @ _POWERS,
        numbers.filter(pa.array(taken)).cast(pa.float64()).to_numpy(zero_copy_only=False),
    )


def _buffers(texts: pa.BinaryArray) -> tuple[Ints, _Bytes]:
    """Where each text ends in the bytes of all (n + 1 places, the first 0), and the bytes."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)
    every = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return ends - ends[0], every[ends[0] : ends[-1]]


def _places(begin: Ints, long: Ints) -> Ints:
    """Every place of every stretch."""
    firsts = np.cumsum(long) - long
    places: Ints = np.repeat(begin - firsts, long) + np.arange(long.sum())
    return places


def _no_other(data: _Bytes, begin: Ints, long: Ints) -> Bools:
    """Which stretches, none of them empty, hold nothing but characters of numbers."""
    if not len(begin):
        return np.zeros(0, np.bool_)
    only: Bools = np.logical_and.reduceat(
        _IN_A_NUMBER[data[_places(begin, long)]], np.cumsum(long) - long
    )
    return only


def _texts(data: _Bytes, begin: Ints, long: Ints) -> pa.StringArray:
    """Stretches of ASCII as texts."""
    ends = np.zeros(len(long) + 1, np.int32)
    np.cumsum(long, out=ends[1:])
    taken = data[_places(begin, long)]
    return pa.Array.from_buffers(
        pa.string(), len(long), [None, pa.py_buffer(ends), pa.py_buffer(taken)]
    )


def _chosen(texts: list[bytes], code: _Codes) -> pa.BinaryArray:
    return pa.array(texts, pa.binary()).take(pa.array(code))
