"""Signals that are read side by side: the very same as message by message, whatever comes."""

import json
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record
from iiot_platform.engine import alike_signals
from iiot_platform.engine.decode import Decoded, decode
from iiot_platform.engine.messages import MessageDecoder, Messages
from iiot_platform.engine.signal_template import template_of
from tests.servers.streams import BASE_MS, signal

SETTINGS = LineSettings(line="line1")
NUMBERS = (
    *("0", "-0", "-0.0", "0.0", "1", "-1", "007", "01.5", ".5", "5.", "+1", "1e5", "1E+05", "-0e0"),
    *("1e-7", "1e400", "-1e400", "1e99", "1e-99", "1e-400", "4.9e-324", "1e", "1e+", "--1", "1-1"),
    *("9007199254740993", "123456789012345", "1234567890123456", "18446744073709551616"),
    *("9" * 24, "9" * 25, "0." + "3" * 22, "0." + "3" * 40, "2.2250738585072014e-30"),
    *("1.7976931348623157e308", "0.1000000000000000055511", "NaN", "-Infinity", "inf", "nan"),
    *("null", "true", '"21.5"', "[1]", "{}", "", " ", "1 ", "0x10", "1_000", "٣", "1.5.2"),
)
TIMES = (
    *(str(BASE_MS), str(BASE_MS + 1), str(BASE_MS + 301_000), str(BASE_MS - 8 * 86_400_000)),
    *("9999999999999", "0999999999999", "999999999999", "10000000000000", f"{BASE_MS}.0"),
    *(f"{BASE_MS}.5", f"-{BASE_MS}", "1.79e12", "17e11", f"{BASE_MS} ", "null", "true", "NaN"),
    *(f'"{BASE_MS}"', str(BASE_MS)[:12] + "x", str(BASE_MS)[:12] + ".", "9" * 400),
)
SHAPES = (
    '{"SensorValue":<v>,"TimeStamp":<t>}',
    '{"TimeStamp":<t>,"SensorValue":<v>}',
    '{ "LineName" : "line1", "SensorName":"s0", "SensorValue"\t:\n <v> , "TimeStamp" : <t> }\n',
    '{"LineName":"other","MachineName":"press","SensorValue":<v>,"TimeStamp":<t>}',
    '{"SensorName":"Ölstand \\u00e9 \\" {}","SensorValue":<v>,"TimeStamp":<t>}',
    '{"SensorValue":<v>,"SensorValue":<v>,"TimeStamp":<t>}',
    '{"SensorValue":<v>,"Sensor\\u0056alue":1.5,"TimeStamp":<t>}',
    '{"SensorValue":<v>,"Time\\u0053tamp":1,"TimeStamp":<t>}',
    '{"TimeStamp":<t>,"TimeStamp":<t>,"SensorValue":<v>}',
    '{"More":{"SensorValue":<v>},"TimeStamp":<t>}',
    '{"More":{"SensorValue":<v>,"TimeStamp":<t>},"SensorName":[1]}',
    '{"SensorName":"\\"SensorValue\\":<v>,","SensorValue":2.5,"TimeStamp":<t>}',
    '{"StateName":"s0","StateValue":1,"SensorValue":<v>,"TimeStamp":<t>}',
    '{"StateValue":"x","SensorValue":<v>,"TimeStamp":<t>}',
    '{"SensorValue":<v>}',
    '{"StateName":"s0","StateValue":<v>,"TimeStamp":<t>}',
    '{"Temperature":<v>,"Humidity":<v>,"TimeStamp":<t>}',
    '{"TimeType":"ExtendTime","TimeValue":<v>,"TimeStamp":<t>}',
    '[{"SensorValue":<v>,"TimeStamp":<t>}]',
    '{"SensorValue":<v>,"TimeStamp":<t>}}',
)
TOPICS = (*(f"line1/press/s{i}" for i in range(3)), "line1/press/s0.Humidity", "line2/press/s0")

numbers = (
    st.sampled_from(NUMBERS)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(-1000, 1000, places=3).map(str)
    | st.integers(-(2**70), 2**70).map(str)
)
plain = st.decimals(-1000, 1000, places=3).map(str)
times = st.sampled_from(TIMES) | st.integers(BASE_MS - 1_000, BASE_MS + 1_000).map(str)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Mostly of one shape with plain numbers; here and there anything else."""
    odd = draw(st.integers(0, 3)) == 0
    shape = draw(st.sampled_from(SHAPES if odd else SHAPES[:4]))
    number = draw(numbers if odd else plain)
    text = shape.replace("<v>", number).replace("<t>", draw(times if odd else st.just(TIMES[0])))
    body = text.encode()
    if odd and draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 2)) :]
    return body


@st.composite
def records(draw: st.DrawFn) -> Record:
    return Record(
        "mqtt",
        draw(st.sampled_from(TOPICS)),
        draw(payloads()),
        BASE_MS * 1_000,
        source_ts=draw(st.sampled_from((None, BASE_MS * 1_000 - 5))),
        quality=draw(st.sampled_from((0, 0, 0, 0x80000000, 0x40000000))),
    )


def records_table(log: list[Record]) -> pa.Table:
    columns = {"offset": list(range(len(log)))} | {
        name: [getattr(record, name) for record in log] for name in Record._fields
    }
    return pa.table(columns, schema=SEGMENT_SCHEMA)


def with_enough(messages: int, log: list[Record]) -> Decoded:
    with mock.patch.object(alike_signals, "_ENOUGH", messages):
        return decode(records_table(log), SETTINGS)


def in_bits(found: Decoded) -> tuple[object, ...]:
    columns = {
        name: (column.dtype, column.tobytes()) if hasattr(column, "tobytes") else column
        for name, column in vars(found.readings).items()
    }
    return columns, found.quarantine, found.misnamed


@given(st.lists(records(), max_size=40))
def test_side_by_side_is_message_by_message(log: list[Record]) -> None:
    assert in_bits(with_enough(1, log)) == in_bits(with_enough(10**9, log))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_odd_number_in_every_shape(shape: str) -> None:
    """Among plain ones, and as what a topic's template is looked for in."""
    plain_one = shape.replace("<v>", "21.5").replace("<t>", TIMES[0])
    log = []
    for i, number in enumerate(NUMBERS):
        odd_ones = [shape.replace("<v>", number).replace("<t>", time) for time in TIMES]
        of_topic = {"odd": [plain_one, *odd_ones], f"odd{i}": [*odd_ones, plain_one]}
        for device, texts in of_topic.items():
            topic = f"line1/press/{device}"
            log += [Record("mqtt", topic, text.encode(), BASE_MS * 1_000) for text in texts]
    assert in_bits(with_enough(1, log)) == in_bits(with_enough(10**9, log))


def test_what_a_device_sends_is_read_side_by_side() -> None:
    """Or the tests above compare the general decoder with itself."""
    log = [signal(f"s{i % 3}", BASE_MS + i, 20 + i / 7) for i in range(300)]
    messages = Messages.of(records_table(log))
    alike, readings = alike_signals.read_signals(messages, MessageDecoder(SETTINGS))
    assert alike.all()
    assert readings.values.tolist() == [20 + i / 7 for i in range(300)]


@pytest.mark.parametrize(
    "body",
    [
        {"SensorValue": 1.5, "More": {"SensorValue": 1.5}, "TimeStamp": BASE_MS},
        {"StateValue": 1, "TimeStamp": BASE_MS},
        {"SensorValue": 1.5},
        {"SensorValue": 1.5, "TimeStamp": BASE_MS // 1_000},
        {"More": {"SensorValue": 1.5}, "TimeStamp": BASE_MS},
    ],
)
def test_where_two_numbers_are_not_all_there_is_no_template(body: dict[str, object]) -> None:
    assert template_of(json.dumps(body).encode()) is None
