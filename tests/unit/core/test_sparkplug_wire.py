"""The reader of Sparkplug payloads, against what another implementation writes."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.core import sparkplug
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.sparkplug import Metric, Topic, topic_of
from tests.servers.sparkplug import FIELD_OF, PAYLOAD, metric, payload

UINT64 = st.integers(0, 2**64 - 1)
VALUES = {
    **{t: st.integers(-(2 ** (b - 1)), 2 ** (b - 1) - 1) for t, b in sparkplug.SIGNED.items()},
    **{t: st.integers(0, 2**b - 1) for t, b in sparkplug.UNSIGNED.items()},
    9: st.floats(width=32),
    10: st.floats(),
    11: st.booleans(),
    12: st.text(),
    13: UINT64,
    14: st.text(),
    15: st.uuids().map(str),
}


def same(mine: object, theirs: object) -> bool:
    nan = isinstance(mine, float) and isinstance(theirs, float) and math.isnan(mine)
    return mine == theirs or (nan and math.isnan(theirs))  # type: ignore[arg-type]


@st.composite
def metrics(draw: st.DrawFn) -> tuple[object, int, object]:
    datatype = draw(st.sampled_from(sorted(VALUES)))
    value = draw(VALUES[datatype])
    built = metric(
        value,
        datatype=datatype,
        name=draw(st.none() | st.text()),
        alias=draw(st.none() | UINT64),
        ts=draw(st.none() | UINT64),
        quality=draw(st.none() | st.integers(0, 2**32 - 1)),
        is_historical=draw(st.booleans()),
        is_null=draw(st.booleans()),
        is_transient=draw(st.none() | st.booleans()),
    )
    return built, datatype, value


@given(some=st.lists(metrics(), max_size=5), ts=st.none() | UINT64, seq=st.none() | UINT64)
def test_every_scalar_is_read_as_it_was_written(
    some: list[tuple[object, int, object]], ts: int | None, seq: int | None
) -> None:
    found = sparkplug.decode(payload(*(built for built, _, _ in some), ts=ts, seq=seq))
    assert (found.timestamp, found.seq, len(found.metrics)) == (ts, seq, len(some))
    for mine, (theirs, datatype, value) in zip(found.metrics, some, strict=True):
        for name, field in (("name", "name"), ("alias", "alias"), ("timestamp", "timestamp")):
            there = getattr(theirs, field) if theirs.HasField(field) else None  # type: ignore[attr-defined]
            assert getattr(mine, name) == there
        assert mine.datatype == datatype
        assert (mine.historical, mine.null) == (theirs.is_historical, theirs.is_null)  # type: ignore[attr-defined]
        assert (mine.quality is None) == (not theirs.HasField("properties"))  # type: ignore[attr-defined]
        if datatype in sparkplug.TEXTS:
            assert mine.value == value
        else:
            assert same(sparkplug.number(datatype, mine.value), value)


@pytest.mark.parametrize(
    ("datatype", "sent", "meant"),
    [
        (1, 0xFF, -1),
        (1, 0xFFFF_FFFF, -1),
        (1, 0x80, -128),
        (2, 0x8000, -32_768),
        (3, 0xFFFF_FFFE, -2),
        (4, 2**64 - 5, -5),
        (5, 255, 255),
        (5, 256, None),
        (8, 2**64 - 1, 2**64 - 1),
        (10, "1", None),
        (11, True, 1),
        (11, 1, 1),
        (11, 2, None),
        (12, 5, None),
        (3, 1.5, None),
    ],
)
def test_numbers_are_what_their_type_means(
    datatype: int, sent: sparkplug.Value, meant: float | None
) -> None:
    assert sparkplug.number(datatype, sent) == meant


def test_what_is_no_scalar_has_no_value_but_its_name() -> None:
    built = metric(name="table", datatype=16)
    built.dataset_value.num_of_columns = 2
    blob = metric(name="blob", datatype=17)
    blob.bytes_value = b"\0\1"
    found = sparkplug.decode(payload(built, blob, metric(1, datatype=3, name="after")))
    assert [(m.name, m.value, m.other) for m in found.metrics] == [
        ("table", None, True),
        ("blob", None, True),
        ("after", 1, False),
    ]


def test_a_rebirth_command_is_what_others_read() -> None:
    command = PAYLOAD.FromString(sparkplug.rebirth_command(1_790_000_000_123))
    assert command.timestamp == 1_790_000_000_123
    (asked,) = command.metrics
    assert (asked.name, asked.datatype, asked.boolean_value) == ("Node Control/Rebirth", 11, True)
    assert sparkplug.rebirth_topic("G", "E") == "spBv1.0/G/NCMD/E"


@given(body=st.binary(max_size=400))
def test_any_bytes_are_a_payload_or_a_decode_error(body: bytes) -> None:
    with contextlib.suppress(DecodeError):
        sparkplug.decode(body)


@given(some=st.lists(metrics(), min_size=1, max_size=3), data=st.data())
def test_broken_payloads_are_a_payload_or_a_decode_error(
    some: list[tuple[object, int, object]], data: st.DataObject
) -> None:
    body = bytearray(payload(*(built for built, _, _ in some), ts=5, seq=1))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    with contextlib.suppress(DecodeError):
        sparkplug.decode(bytes(body[:cut]))


@pytest.mark.parametrize(
    "body",
    [b"\x12", b"\x12\x05\x08", b"\x08" + b"\xff" * 11, b"\x12\x02\x0a\x05", b"\x0a\x01\x00", b"{}"],
)
def test_what_is_cut_short_or_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        sparkplug.decode(body)
    assert caught.value.reason == "not_sparkplug"


def test_bd_seq_is_found() -> None:
    assert sparkplug.decode(payload(metric(7, datatype=8, name="bdSeq"))).bd_seq == 7
    assert sparkplug.decode(payload()).bd_seq is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("spBv1.0/G/NBIRTH/E", Topic("G", "NBIRTH", "E")),
        ("spBv1.0/G/DDATA/E/D", Topic("G", "DDATA", "E", "D")),
        ("spBv1.0/G/NDATA/E/D", None),
        ("spBv1.0/G/DDATA/E", None),
        ("spBv1.0/G/NCMD/E", None),
        ("spBv1.0/STATE/host", None),
        ("spBv1.0//NDATA/E", None),
        ("spBv1.0/G/DDATA/E/", None),
        ("line1/press/x", None),
    ],
)
def test_topics(text: str, meant: Topic | None) -> None:
    assert topic_of(text) == meant


def test_every_scalar_type_is_tried() -> None:
    assert set(VALUES) == set(FIELD_OF) == {t for t in sparkplug.DataType if t}
    assert Metric().value is None
