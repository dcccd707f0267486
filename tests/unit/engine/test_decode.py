"""Hostile and merely odd messages: decoded, or set aside with the reason; never lost or fatal."""

import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record
from iiot_platform.engine.decode import QUARANTINE_REASONS, Decoded, decode, quarantine_rows
from iiot_platform.engine.readings import NO_STATE
from tests.servers.streams import BASE_MS, line_records, signal

SETTINGS = LineSettings(line="line1")
HARMONICS = [0.5] * 42
GOOD = signal("good", BASE_MS, 1.0)


def table_of(records: list[Record]) -> pa.Table:
    columns = {"offset": list(range(len(records)))} | {
        name: [getattr(record, name) for record in records] for name in Record._fields
    }
    return pa.table(columns, schema=SEGMENT_SCHEMA)


def decoded(*records: Record) -> Decoded:
    return decode(table_of(list(records)), SETTINGS)


def message(payload: bytes | str, topic: str = "line1/press/x", **more: object) -> Record:
    body = payload if isinstance(payload, bytes) else payload.encode()
    return Record("mqtt", topic, body, BASE_MS * 1_000, **more)  # type: ignore[arg-type]


def with_time(stamp: str) -> str:
    return f'{{"SensorValue":1,"TimeStamp":{stamp}}}'


def electrical(**changed: object) -> str:
    body = {"DeviceState": "Running", "ElectricalData": {"CurrentL1": 1.0}}
    return json.dumps(body | changed)


REFUSED = {
    "nothing": (b"", "not_json"),
    "zero byte": (b"\0", "not_json"),
    "not JSON": (b"warm", "not_json"),
    "a number and more": (b"21.5 degrees", "not_an_object"),
    "cut off": (b'{"SensorValue":1', "not_json"),
    "two objects": (b'{"SensorValue":1}{"SensorValue":1}', "not_json"),
    "no UTF-8": (b'{"SensorName":"\xff\xfe","SensorValue":1}', "not_json"),
    "no UTF-8 in a key": (b'{"\xff":1}', "not_json"),
    "half a surrogate": (b'{"\\ud800":1,"a":1}', "not_json"),
    "byte order mark": (b'\xef\xbb\xbf{"SensorValue":1}', "not_json"),
    "10 MB of brackets": (b"[" * 10_000_000, "not_an_object"),
    "1,000 deep": (b'{"a":' * 1_000 + b"1" + b"}" * 1_000, "too_deep"),
    "NaN": ('{"SensorValue":NaN}', "not_json"),
    "infinity": ('{"SensorValue":-Infinity}', "not_json"),
    "too large a number": ('{"SensorValue":1e999}', "not_finite"),
    "400 digits": ('{"SensorValue":' + "9" * 400 + "}", "not_finite"),
    "a list": ("[1]", "not_an_object"),
    "a number": ("5", "not_an_object"),
    "null": ("null", "not_an_object"),
    "text as value": ('{"SensorValue":"21.5"}', "wrong_type"),
    "true as value": ('{"SensorValue":true}', "wrong_type"),
    "null as value": ('{"SensorValue":null}', "wrong_type"),
    "list as value": ('{"SensorValue":[1]}', "wrong_type"),
    "state with a fraction": ('{"StateValue":1.5}', "wrong_type"),
    "state beyond 64 bits": ('{"StateValue":9223372036854775808}', "not_finite"),
    "state that stands for none": ('{"StateValue":-9223372036854775808}', "not_finite"),
    "state of 400 digits": ('{"StateValue":' + "9" * 400 + "}", "not_finite"),
    "state of 5,000 digits": ('{"StateValue":' + "9" * 5_000 + "}", "not_finite"),
    "time in 1970": (with_time("0"), "too_old"),
    "negative time": (with_time("-5"), "too_old"),
    "time in seconds": (with_time(str(BASE_MS // 1_000)), "too_old"),
    "time in 2100": (with_time("4102444800000"), "in_future"),
    "time in microseconds": (with_time(str(BASE_MS * 1_000)), "in_future"),
    "time of 400 digits": (with_time("9" * 400), "in_future"),
    "time of -400 digits": (with_time("-" + "9" * 400), "too_old"),
    "huge time": (with_time("1e300"), "in_future"),
    "infinite time": (with_time("1e999"), "not_finite"),
    "time as text": (with_time(f'"{BASE_MS}"'), "wrong_type"),
    "time as true": (with_time("true"), "wrong_type"),
    "41 harmonics": (
        electrical(ElectricalData={"CurrentL1_Harm": HARMONICS[1:]}),
        "wrong_type",
    ),
    "null among harmonics": (
        electrical(ElectricalData={"CurrentL1_Harm": [*HARMONICS[1:], None]}),
        "wrong_type",
    ),
    "electrical data that is no object": (electrical(ElectricalData=5), "wrong_type"),
    "no device state": ('{"ElectricalData":{}}', "missing_field"),
    "unknown device state": (electrical(DeviceState="Paused"), "wrong_type"),
    "device state as number": (electrical(DeviceState=1), "wrong_type"),
    "pulse as text": (electrical(SynchPulse="yes"), "wrong_type"),
    "unknown operation": ('{"TimeType":"Wait","TimeValue":5}', "unknown_operation"),
    "no operation": ('{"TimeValue":5}', "unknown_operation"),
    "operation as list": ('{"TimeType":["Extend"],"TimeValue":5}', "unknown_operation"),
    "one axis of three": ('{"VibAccelTotRmsX":1}', "missing_field"),
    "axes of two namings": (
        '{"VibAccelTotRmsX":1,"VibAccelTotRmsY":1,"VibAccelTotal_RMS_Z":1}',
        "missing_field",
    ),
    "nothing numeric": ('{"a":{"b":1},"c":[1],"d":"1","e":true,"f":null}', "no_values"),
    "an empty object": ("{}", "no_values"),
    "only names and time": (f'{{"LineName":"line1","TimeStamp":{BASE_MS}}}', "no_values"),
    "a field without a name": ('{"":1}', "bad_name"),
    "a line break in a name": ('{"a\\nb":1}', "bad_name"),
    "40,000 fields": (json.dumps({f"f{i}": i for i in range(40_000)}), "too_many_fields"),
}


@pytest.mark.parametrize(("payload", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_a_bad_message_is_set_aside_and_stops_nobody(payload: bytes | str, reason: str) -> None:
    bad = message(payload)
    found = decoded(GOOD, bad, GOOD._replace(topic="line1/press/next"))
    assert [entry.reason for entry in found.quarantine] == [reason]
    assert reason in QUARANTINE_REASONS
    entry = found.quarantine[0]
    assert (entry.offset, entry.topic, entry.received) == (1, bad.topic, BASE_MS)
    assert entry.payload == bad.payload
    assert 0 < len(entry.detail) <= 200
    assert found.readings.offset.tolist() == [0, 2]
    assert len(quarantine_rows(found.quarantine)) == 1


@pytest.mark.parametrize(
    "topic",
    ["", "line1", "line1/press", "line1/press/", "line1//x", "line2/press/x", "LINE1/press/x"],
)
def test_a_topic_of_another_shape_is_set_aside(topic: str) -> None:
    assert decoded(message('{"SensorValue":1}', topic)).reasons == {"bad_topic": 1}


@pytest.mark.parametrize("character", ["\n", "\0", "\x7f", "\t"])
def test_a_topic_with_control_characters_is_set_aside(character: str) -> None:
    found = decoded(message('{"SensorValue":1}', f"line1/press/a{character}b"))
    assert found.reasons == {"bad_name": 1}


@pytest.mark.parametrize("device", ["..", "#", "+", "a b", 'q"uote', "it's", "a\\", "😀", "a/b/c"])
def test_odd_names_of_devices_are_kept_as_they_are(device: str) -> None:
    found = decoded(message('{"SensorValue":1}', f"line1/press/{device}"))
    assert [key.name for key in found.readings.keys] == [device]


def test_odd_names_of_fields_are_kept_as_they_are() -> None:
    names = ["..", "#", 'q"uote', "😀", "../../etc"]
    found = decoded(message(json.dumps(dict.fromkeys(names, 1))))
    assert [key.name for key in found.readings.keys] == [f"x.{name}" for name in names]
    assert found.readings.sub.tolist() == list(range(len(names)))


@pytest.mark.parametrize(
    ("payload", "kind", "values"),
    [
        ('{"SensorValue":1,"SensorValue":2}', schema.SIGNAL, [2.0]),
        ('{"SensorValue":-0.0}', schema.SIGNAL, [-0.0]),
        (f'{{"SensorValue":{10**200}}}', schema.SIGNAL, [1e200]),
        ('{"TimeType":"Extend","TimeValue":300}', schema.VALVE, [300.0]),
        (
            '{"VibAccelTotal_RMS_X":1,"VibAccelTotal_RMS_Y":2,"VibAccelTotal_RMS_Z":3,"Level":9}',
            schema.VIBRATION,
            [1.0, 2.0, 3.0],
        ),
        ('{"a":{"b":1},"c":[1],"d":7,"e":true}', schema.SIGNAL, [7.0]),
        (f'{{"large":{"9" * 400},"d":7}}', schema.SIGNAL, [7.0]),
        ("{" + f'"pad":"{"a" * 10_000_000}","SensorValue":1' + "}", schema.SIGNAL, [1.0]),
    ],
    ids=["twice", "minus zero", "1e200", "valve", "alias", "nested", "400 digits", "10 MB"],
)
def test_odd_payloads_that_say_something(payload: str, kind: str, values: list[float]) -> None:
    found = decoded(message(payload))
    assert not found.quarantine
    assert [key.kind for key in found.readings.keys] == [kind]
    assert found.readings.values[: len(values)].tolist() == values


@pytest.mark.parametrize(
    ("state", "value"), [("Running", 1), ("Stopped", 0), (True, 1), (False, 0)]
)
def test_device_states(state: object, value: int) -> None:
    found = decoded(message(electrical(DeviceState=state, SynchPulse=True)))
    assert found.readings.state.tolist() == [value]
    assert found.readings.pulse.tolist() == [1]
    assert len(found.readings.values) == len(schema.VALUE_NAMES[schema.ELECTRICAL])


@pytest.mark.parametrize(("value", "state"), [("7", 7), ("-3", -3), ("true", 1), ("false", 0)])
def test_states(value: str, state: int) -> None:
    assert decoded(message(f'{{"StateValue":{value}}}')).readings.state.tolist() == [state]


def test_a_time_with_a_fraction_is_cut_to_its_millisecond() -> None:
    found = decoded(message(with_time(f"{BASE_MS}.75")))
    assert found.readings.ts.tolist() == [BASE_MS]


def test_without_a_time_the_source_or_else_the_receive_time_counts_and_says_so() -> None:
    plain = message(with_time("null"))
    found = decoded(plain, plain._replace(source_ts=(BASE_MS - 5) * 1_000, quality=quality.BAD))
    assert found.readings.ts.tolist() == [BASE_MS, BASE_MS - 5]
    assert found.readings.quality.tolist() == [quality.GOOD_RECEIVE_TIME, quality.BAD]
    assert found.readings.state.tolist() == [NO_STATE] * 2


def test_names_that_disagree_are_counted_and_never_become_keys() -> None:
    found = decoded(
        message('{"LineName":"other","SensorName":"../y","SensorValue":1}'),
        message('{"LineName":["line1"],"SensorName":{"a":1},"SensorValue":1}'),
        message('{"LineName":"line1","MachineName":"press","SensorName":"x","SensorValue":1}'),
    )
    assert found.misnamed == 2
    assert [key.name for key in found.readings.keys] == ["x"]


def test_the_limits_of_time_are_the_settings() -> None:
    strict = LineSettings(line="line1", max_lateness_s=10, max_future_s=2)
    stamps = [-10_001, -10_000, 2_000, 2_001]
    records = [message(with_time(str(BASE_MS + stamp))) for stamp in stamps]
    found = decode(table_of(records), strict)
    assert found.readings.ts.tolist() == [BASE_MS - 10_000, BASE_MS + 2_000]
    assert found.reasons == Counter(too_old=1, in_future=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "LineName",
        "MachineName",
        "TimeStamp",
        "SensorName",
        "SensorValue",
        "StateValue",
        "VibAccelTotRmsX",
        "TimeType",
        "TimeValue",
        "DeviceState",
        "SynchPulse",
        "ElectricalData",
        "Temperature",
    ]
)
VALID = [json.loads(record.payload) for record in line_records(1, 60)]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = dict(draw(st.sampled_from(VALID)))
    for name in draw(st.lists(FIELDS, max_size=3)):
        body[name] = draw(JSON)
    text = json.dumps(body).encode()
    cut = draw(st.integers(0, 2 * len(text)))
    return text[:cut] + draw(st.binary(max_size=2)) + text[cut:] if cut < len(text) else text


@given(
    payloads=st.lists(
        st.one_of(st.binary(max_size=40), JSON.map(lambda x: json.dumps(x).encode()), mutated()),
        min_size=1,
        max_size=6,
    ),
    topic=st.one_of(st.just("line1/press/x"), st.text(max_size=6).map("line1/press/{}".format)),
)
def test_no_message_is_lost_whatever_it_holds(payloads: list[bytes], topic: str) -> None:
    topic = topic.encode("utf-8", "ignore").decode()
    found = decoded(*(message(payload, topic) for payload in payloads))
    read = set(found.readings.offset.tolist())
    aside = [entry.offset for entry in found.quarantine]
    assert sorted([*read, *aside]) == list(range(len(payloads)))
    assert set(found.reasons) <= set(QUARANTINE_REASONS)
    assert found.readings.first[-1] == len(found.readings.values)
    assert len(found.readings.to_table()) == len(found.readings)
    quarantine_rows(found.quarantine)
