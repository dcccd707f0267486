"""Whatever a server or a broker sends becomes a record, and every record is read or set aside."""

import enum
import json
import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, get_args

from asyncua import ua
from hypothesis import example, given
from hypothesis import strategies as st

from buffer_service.sources.mqtt_routing import Routing
from buffer_service.sources.opcua import OpcUaReceiver
from buffer_service.sources.opcua_json import canonical
from buffer_service.sources.opcua_nodes import Shape, Target
from iiot_platform.core import quality
from iiot_platform.core.capture_log import Record
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.decode import QUARANTINE_REASONS, decode
from tests.fuzz.payloads import SETTINGS, table_of

SHAPES: tuple[Shape, ...] = get_args(Shape)
RECEIVED_US = 1_790_000_000_000_000


class Mode(enum.IntEnum):
    OFF = 0
    AUTO = 3


texts = st.text(st.characters(codec="utf-8"))  # what UTF-8 can carry
times = st.datetimes(datetime(1601, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001 - as asyncua gives them
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    texts,
    st.binary(max_size=20),
    times,
    st.uuids(),
    st.sampled_from(Mode),
    texts.map(ua.LocalizedText),
    texts.map(ua.QualifiedName),
    st.integers(0, 2**32 - 1).map(ua.NodeId),
    texts.map(lambda text: ua.NodeId(text, 2)),
    st.integers(0, 2**32 - 1).map(ua.StatusCode),
    st.binary(max_size=20).map(lambda body: ua.ExtensionObject(ua.NodeId(7, 2), body)),
)
names = st.one_of(
    texts,
    st.sampled_from(("SensorValue", "StateValue", "TimeStamp", "TimeType", "ElectricalData")),
    st.sampled_from(("VibAccelTotRmsX", "VibAccelTotRmsY", "VibAccelTotRmsZ", "DeviceState")),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names, inner, max_size=5)
        | inner.map(lambda value: ua.Variant(value, ua.VariantType.Null))
    ),
    max_leaves=12,
)
codes = st.sampled_from((0, 0, quality.BAD, quality.UNCERTAIN, 0xFFFF_FFFF))


@given(values, st.sampled_from(SHAPES), codes, st.none() | times)
@example(math.nan, "state", 0, None)
@example(1e300, "state", 0, None)
@example({"TimeStamp": math.inf, "SensorValue": 1.0}, "struct", 0, None)
def test_any_value_of_a_server_is_read_or_set_aside(
    value: Any, shape: Shape, code: int, source: datetime | None
) -> None:
    target = Target(ua.NodeId(1, 2), "line1", "line1/press/x", shape, ua.NodeId(11))
    stamp = None if source is None else source.replace(tzinfo=UTC)
    data = ua.DataValue(None, ua.StatusCode(code), SourceTimestamp=stamp)
    record = OpcUaReceiver._record(SimpleNamespace(name="plc", _bad=0), target, value, data)  # type: ignore[arg-type] # all that it needs
    found = decode(table_of([(0, record._replace(received_ts=RECEIVED_US))]), SETTINGS)
    assert (len(found.readings) > 0) != (len(found.quarantine) == 1)
    assert {entry.reason for entry in found.quarantine} <= set(QUARANTINE_REASONS)


@given(st.recursive(st.floats() | texts | st.integers(-(2**63), 2**63 - 1), st.lists))
def test_json_of_a_value_says_it_to_the_bit(value: Any) -> None:
    def same(told: Any, meant: Any) -> bool:
        if isinstance(meant, list):
            return len(told) == len(meant) and all(map(same, told, meant))
        if isinstance(meant, float):
            # NaN has one spelling, and JSON does not say -0 otherwise than 0 does
            number = float(told)
            return number == meant or (math.isnan(number) and math.isnan(meant))
        return type(told) is type(meant) and told == meant

    assert same(json.loads(canonical(value)), value)


prefixes = st.dictionaries(
    st.sampled_from(("", "a/", "a/b/", "ab/", "site/line1/", "line1/")),
    st.sampled_from(("line1", "line2", "line3")),
)


@given(prefixes, st.lists(st.binary(max_size=30) | texts.map(str.encode), min_size=1))
@example({"a/": "line1", "a/b/": "line2"}, [b"a/b/c", b"a/b", b"a", b"ab", b"/a/b"])
@example({"": "line1"}, [b"", b"../../etc/passwd", b"\xff\xfe"])
def test_any_topic_goes_to_the_line_of_its_longest_prefix_or_to_none(
    streams: dict[str, str], topics: list[bytes]
) -> None:
    routing = Routing(streams, [f"{prefix}#" for prefix in streams])
    for topic in [*topics, *topics]:  # the second time from memory
        text, stream = routing[topic]
        try:
            assert text == topic.decode()
        except UnicodeDecodeError:
            assert stream is None
            continue
        fitting = [prefix for prefix in streams if f"{text}/".startswith(prefix)]
        assert stream == (streams[max(fitting, key=len)] if fitting else None)


@given(texts, st.sampled_from((b'{"SensorValue": 1.5}', b'{"A": 1, "B": 2}', b'{"StateValue": 1}')))
@example("line1/../../x", b'{"SensorValue": 1.5}')
@example("line1/a/b\x00c", b'{"SensorValue": 1.5}')
def test_a_topic_names_a_series_that_reads_back_or_is_set_aside(topic: str, payload: bytes) -> None:
    record = Record("mqtt", topic, payload, RECEIVED_US)
    found = decode(table_of([(0, record)]), SETTINGS)
    assert (len(found.readings) > 0) != (len(found.quarantine) == 1)
    for key in found.readings.keys:
        assert SeriesKey.parse(key.text) == key
        assert not any(ord(letter) < 32 for letter in key.text)
