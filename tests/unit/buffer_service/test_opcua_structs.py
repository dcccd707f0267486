import contextlib
import struct
from dataclasses import make_dataclass
from typing import Any

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from buffer_service.sources.opcua_json import canonical
from buffer_service.sources.opcua_structs import BodyError, Field, StructDecoder, ms_of_ticks
from tests.servers.effort import BROAD

INT32, INT64, FLOAT, DOUBLE, STRING, BOOLEAN = 6, 8, 10, 11, 12, 1
INNER = StructDecoder("Inner", [Field("A", DOUBLE), Field("Row", DOUBLE, 1)])
OUTER = StructDecoder(
    "Outer",
    [
        Field("Name", STRING),
        Field("On", BOOLEAN),
        Field("Count", INT64),
        Field("Value", FLOAT),
        Field("Data", INNER),
        Field("Words", STRING, 1),
    ],
)
Inner = make_dataclass(
    "Inner", [("A", ua.Double), ("Row", list[ua.Double])], namespace={"__module__": __name__}
)
Outer = make_dataclass(
    "Outer",
    [
        ("Name", ua.String),
        ("On", ua.Boolean),
        ("Count", ua.Int64),
        ("Value", ua.Float),
        ("Data", Inner),
        ("Words", list[ua.String]),
    ],
    namespace={"__module__": __name__},
)
doubles = st.floats(allow_nan=False, allow_infinity=False)


@BROAD
@given(
    st.text(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    doubles,
    st.lists(doubles),
    st.lists(st.text()),
)
def test_what_asyncua_encodes_is_decoded_and_survives_json(
    name: str,
    on: bool,  # noqa: FBT001 - given by name
    count: int,
    value: float,
    a: float,
    row: list[float],
    words: list[str],
) -> None:
    body = struct_to_binary(Outer(name, on, count, value, Inner(a, row), words))
    decoded = OUTER.decode(body)
    assert decoded == {
        "Name": name,
        "On": on,
        "Count": count,
        "Value": value,
        "Data": {"A": a, "Row": row},
        "Words": words,
    }
    assert list(decoded) == ["Name", "On", "Count", "Value", "Data", "Words"]
    assert msgspec.json.decode(canonical(decoded)) == decoded


@given(st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    with contextlib.suppress(BodyError):
        assert set(OUTER.decode(body)) == {"Name", "On", "Count", "Value", "Data", "Words"}


def test_bytes_left_over_are_refused() -> None:
    with pytest.raises(BodyError, match="takes 12 of 13 bytes"):
        INNER.decode(struct.pack("<di", 1.5, 0) + b"x")


def test_a_null_text_and_a_null_array() -> None:
    decoder = StructDecoder("T", [Field("Name", STRING), Field("Row", FLOAT, 1)])
    assert decoder.decode(struct.pack("<ii", -1, -1)) == {"Name": None, "Row": None}


def test_an_array_that_claims_to_be_huge_is_refused() -> None:
    with pytest.raises(BodyError, match="elements"):
        INNER.decode(struct.pack("<di", 1.5, 2**30))


def test_optional_fields_that_are_absent_are_left_out() -> None:
    kind = ua.StructureType.StructureWithOptionalFields
    fields = [Field("A", INT32), Field("B", INT32, optional=True), Field("C", INT32, optional=True)]
    decoder = StructDecoder("T", fields, kind=kind)
    assert decoder.decode(struct.pack("<Iii", 2, 7, 9)) == {"A": 7, "C": 9}


def test_a_union_is_the_field_that_it_holds() -> None:
    decoder = StructDecoder(
        "T", [Field("A", INT32), Field("B", STRING)], kind=ua.StructureType.Union
    )
    assert decoder.decode(struct.pack("<Ii", 2, 1) + b"x") == {"B": "x"}
    assert decoder.decode(struct.pack("<I", 0)) == {}


def test_a_matrix_becomes_rows() -> None:
    decoder = StructDecoder("T", [Field("M", INT32, 2)])
    assert decoder.decode(struct.pack("<iii6i", 2, 2, 3, *range(6))) == {
        "M": [[0, 1, 2], [3, 4, 5]]
    }


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (116_444_736_000_000_000, b"0"),
        (116_444_736_000_000_000 + 17_950_000_000_001_230, b"1795000000000.123"),
        (116_444_736_000_000_000 - 1, b"-0.0001"),
    ],
)
def test_times_are_exact_to_100_ns(ticks: int, text: bytes) -> None:
    assert canonical([ms_of_ticks(ticks)]) == b"[" + text + b"]"
    assert ms_of_ticks(0) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, b"0.1"),
        (5e-324, b"5e-324"),
        (True, b"true"),
        (None, b"null"),
        (float("nan"), b'"NaN"'),
        (
            {"A": float("-inf"), "B": [None, float("inf")]},
            b'{"A":"-Infinity","B":[null,"Infinity"]}',
        ),
        (b"\x00\xff", b'"AP8="'),
        (ua.LocalizedText("heiß", "de"), '"heiß"'.encode()),
        (ua.ExtensionObject(ua.NodeId(5, 2), b"\x01"), b'{"UaTypeId":"ns=2;i=5","UaBody":"AQ=="}'),
    ],
)
def test_json_of_values(value: Any, text: bytes) -> None:
    assert canonical(value) == text
