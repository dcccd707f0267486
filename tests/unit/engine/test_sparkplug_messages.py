"""Sparkplug messages become signals, states, `Online` and gaps, or are set aside with a reason."""

import math
from typing import Any

import pyarrow as pa
import pytest

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.sparkplug import SparkplugSettings
from iiot_platform.core import quality
from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record
from iiot_platform.engine.decode import QUARANTINE_REASONS, Decoded, decode
from iiot_platform.engine.payloads import gap_in
from tests.servers.sparkplug import metric, payload, spoken
from tests.servers.streams import BASE_MS, signal

T = BASE_MS
NODE, DEVICE = "G/E", "G/E/D"


def settings(*rules: dict[str, str], **more: Any) -> LineSettings:
    nodes = more.pop("nodes", [{"group": "G"}])
    return LineSettings(
        line="line1",
        sparkplug=SparkplugSettings.model_validate({"nodes": nodes, "metrics": rules, **more}),
    )


def read(*records: Record, under: LineSettings | None = None) -> Decoded:
    columns: dict[str, Any] = {"offset": list(range(len(records)))} | {
        name: [getattr(record, name) for record in records] for name in Record._fields
    }
    return decode(pa.table(columns, schema=SEGMENT_SCHEMA), under or settings())


def rows(found: Decoded, *, online: bool = False) -> list[tuple[object, ...]]:
    """Offset, kind, machine, name, time and value of each reading."""
    return [
        (
            row["offset"],
            row["kind"],
            row["machine_name"],
            row["name"],
            round(row["ts"].timestamp() * 1_000) - T,
            row["state"] if row["kind"] == "state" else row["values"][0],
        )
        for row in found.readings.to_table().to_pylist()
        if online or not row["name"].endswith(".Online")
    ]


def born(*metrics: Any, place: str = DEVICE, at: int = 0, bd_seq: int = 1) -> Record:
    own = [metric(bd_seq, datatype=8, name="bdSeq")] if place.count("/") == 1 else []
    kind = "NBIRTH" if own else "DBIRTH"
    return spoken(kind, place, payload(*own, *metrics, ts=T + at, seq=0), T + at + 20)


def data(*metrics: Any, place: str = DEVICE, at: int = 1_000) -> Record:
    kind = "NDATA" if place.count("/") == 1 else "DDATA"
    return spoken(kind, place, payload(*metrics, ts=T + at, seq=1), T + at + 20)


def died(place: str = NODE, at: int = 2_000, bd_seq: int | None = 1) -> Record:
    if place.count("/") > 1:
        return spoken("DDEATH", place, payload(ts=T + at, seq=5), T + at + 20)
    own = [] if bd_seq is None else [metric(bd_seq, datatype=8, name="bdSeq")]
    return spoken("NDEATH", place, payload(*own, ts=T - 9_000), T + at)


def reasons(found: Decoded) -> list[tuple[int, str]]:
    return [(entry.offset, entry.reason) for entry in found.quarantine]


TEMPERATURE = {"name": "Body/Temp", "datatype": 10, "alias": 7}


def test_data_by_alias_are_the_birth_s_metrics() -> None:
    found = read(
        born(metric(20.5, **TEMPERATURE)),
        data(metric(21.5, datatype=10, alias=7, send_type=False)),
        data(metric(22.5, datatype=10, alias=7, ts=T + 1_500), at=2_000),
        data(metric(23.5, datatype=10, name="Body/Temp"), at=3_000),
    )
    assert rows(found) == [
        (0, "signal", "E", "D/Body/Temp", 0, 20.5),
        (1, "signal", "E", "D/Body/Temp", 1_000, 21.5),
        (2, "signal", "E", "D/Body/Temp", 1_500, 22.5),
        (3, "signal", "E", "D/Body/Temp", 3_000, 23.5),
    ]
    assert not found.quarantine


def test_a_node_s_own_metrics_stand_under_a_device_of_their_own() -> None:
    birth = born(metric(5, datatype=3, name="Load", alias=1), place=NODE)
    assert rows(read(birth)) == [(0, "signal", "E", "node/Load", 0, 5.0)]
    named = read(birth, under=settings(node_device="gateway"))
    assert rows(named) == [(0, "signal", "E", "gateway/Load", 0, 5.0)]
    clash = read(born(metric(5, datatype=3, name="Load"), place="G/E/node"))
    assert reasons(clash) == [(0, "bad_name")]
    assert not rows(clash)


def test_any_group_is_part_of_the_machine_s_name() -> None:
    birth = born(metric(5, datatype=3, name="Load"), place="H/E/D")
    under = settings(nodes=[{"group": "*"}])
    assert rows(read(birth, under=under)) == [(0, "signal", "H/E", "D/Load", 0, 5.0)]


def test_types_decide_what_a_metric_becomes_and_rules_about_exceptions() -> None:
    birth = born(
        metric(value=True, datatype=11, name="Run"),
        metric(-3, datatype=1, name="Step"),
        metric(4, datatype=3, name="Mode"),
        metric("x", datatype=12, name="Recipe"),
        metric(5, datatype=13, name="Since"),
        metric(1.5, datatype=9, name="Load"),
        metric(value=True, datatype=11, name="Node Control/Rebirth"),
    )
    plain = read(birth)
    assert [(row[1], row[3], row[5]) for row in rows(plain)] == [
        ("state", "D/Run", 1),
        ("signal", "D/Step", -3.0),
        ("signal", "D/Mode", 4.0),
        ("signal", "D/Load", 1.5),
    ]
    assert plain.ignored == {"text": 2, "control": 1}
    assert not plain.quarantine
    ruled = read(
        birth,
        under=settings(
            {"match": "*/*/Mode", "kind": "state"},
            {"match": "E/D/Run", "kind": "signal"},
            {"match": "E/*/Step", "kind": "ignore"},
            {"match": "E/*/Load", "kind": "state"},
        ),
    )
    assert [(row[1], row[3], row[5]) for row in rows(ruled)] == [
        ("signal", "D/Run", 1.0),
        ("state", "D/Mode", 4),
    ]
    assert ruled.ignored == {"text": 2, "control": 1, "rule": 1}
    assert reasons(ruled) == [(0, "wrong_type")]


def test_what_can_not_be_read_is_set_aside_and_the_rest_of_the_message_is_not() -> None:
    table = metric(name="Table", datatype=16)
    table.dataset_value.num_of_columns = 1
    found = read(
        born(
            table,
            metric(name="Series", datatype=30),
            metric(math.nan, datatype=10, name="Broken"),
            metric(1.0, datatype=10, name="Old", ts=T - 40 * 86_400_000),
            metric(1.0, datatype=10, name="Ahead", ts=2**64 - 1),
            metric(1.0, datatype=10, name="A\nB"),
            metric(1.0, datatype=10, alias=3),
            metric(2.0, **TEMPERATURE),
        )
    )
    assert [row[3] for row in rows(found)] == ["D/Body/Temp"]
    assert sorted(reason for _, reason in reasons(found)) == [
        "bad_name",
        "in_future",
        "missing_field",
        "not_finite",
        "too_old",
        "unsupported_type",
    ]
    assert {reason for _, reason in reasons(found)} <= set(QUARANTINE_REASONS)
    claimed = {entry.reason: entry.claimed for entry in found.quarantine}
    assert claimed["too_old"] == T - 40 * 86_400_000
    assert claimed["in_future"] == T + 20
    assert {entry.payload for entry in found.quarantine} == {found.lifecycle[0].payload}


def test_missing_values_and_their_quality() -> None:
    found = read(
        born(metric(1.0, **TEMPERATURE), metric(value=True, datatype=11, name="Run", alias=8)),
        data(metric(alias=7, is_null=True)),
        data(metric(alias=7, is_null=True, quality=0), at=2_000),
        data(metric(4.0, datatype=10, alias=7, quality=192), at=3_000),
        data(metric(5.0, datatype=10, alias=7, quality=500), at=4_000),
        data(metric(6.0, datatype=10, alias=7, quality=0), at=5_000),
        data(metric(alias=8, is_null=True, quality=0), at=6_000),
    )
    readings = found.readings.to_table().to_pylist()
    read_by_offset = {row["offset"]: row for row in readings if "Temp" in row["name"]}
    assert sorted(read_by_offset) == [0, 2, 3, 4, 5]
    assert math.isnan(read_by_offset[2]["values"][0])
    assert [read_by_offset[i]["quality"] for i in (2, 3, 4, 5)] == [
        quality.BAD,
        quality.GOOD,
        quality.UNCERTAIN,
        quality.BAD,
    ]
    assert found.ignored == {"null": 2}


def test_without_any_time_the_receive_time_stands_in() -> None:
    body = payload(metric(1.0, **TEMPERATURE))
    found = read(spoken("DBIRTH", DEVICE, body, T + 5)).readings.to_table().to_pylist()
    assert [round(row["ts"].timestamp() * 1_000) - T for row in found] == [5, 5]
    assert {row["quality"] for row in found} == {quality.GOOD_RECEIVE_TIME}


def test_data_mean_what_the_last_birth_before_them_said() -> None:
    found = read(
        data(metric(0.5, datatype=10, alias=7)),
        born(metric(1.0, **TEMPERATURE)),
        data(metric(1.5, datatype=10, alias=7)),
        born(metric(2.0, name="Pressure", datatype=10, alias=7), at=1_500),
        data(metric(2.5, datatype=10, alias=7), at=2_000),
        data(metric(3.5, datatype=10, alias=9), metric(4.5, datatype=10, alias=7), at=3_000),
    )
    assert [row[3] for row in rows(found)] == [
        "D/Body/Temp",
        "D/Body/Temp",
        "D/Pressure",
        "D/Pressure",
        "D/Pressure",
    ]
    assert reasons(found) == [(0, "unknown_alias"), (5, "unknown_alias")]


def test_an_alias_that_no_birth_has_named_stays_unknown_whatever_was_read_before() -> None:
    found = read(
        born(metric(1.0, **TEMPERATURE)),
        data(metric(1.5, datatype=10, alias=9, name="Body/Temp")),
        data(metric(2.5, datatype=10, alias=9), at=2_000),
    )
    assert [row[0] for row in rows(found)] == [0, 1]
    assert reasons(found) == [(2, "unknown_alias")]


def test_a_node_s_birth_begins_anew_for_its_devices_and_a_death_ends_them() -> None:
    found = read(
        born(place=NODE),
        born(metric(1.0, **TEMPERATURE)),
        born(place=NODE, at=500),
        data(metric(1.5, datatype=10, alias=7)),
        born(metric(2.0, **TEMPERATURE), at=1_500),
        died(DEVICE, at=2_000),
        data(metric(3.0, datatype=10, alias=7), at=3_000),
    )
    assert reasons(found) == [(3, "unknown_alias"), (6, "unknown_alias")]


def test_a_device_s_birth_that_has_overtaken_its_node_s_is_one_of_the_new_session() -> None:
    reading = metric(1.5, datatype=10, alias=7)
    early = born(metric(1.0, **TEMPERATURE), at=1_000)
    found = read(born(place=NODE), early, born(place=NODE, at=1_000), data(reading, at=1_100))
    assert not found.reasons
    assert rows(found)[-1] == (3, "signal", "E", "D/Body/Temp", 1_100, 1.5)
    before = born(metric(1.0, **TEMPERATURE), at=999)
    assert reasons(read(before, born(place=NODE, at=1_000), data(reading))) == [
        (2, "unknown_alias")
    ]
    late = born(place=NODE, at=1_000)._replace(received_ts=(T + 1_000 + 20 + 2_001) * 1_000)
    assert reasons(read(early, late, data(reading))) == [(2, "unknown_alias")]
    two = read(early, born(place=NODE, at=1_000), born(place=NODE, at=1_000), data(reading))
    assert reasons(two) == [(3, "unknown_alias")]


def online(found: Decoded) -> list[tuple[object, ...]]:
    return [(r[0], r[3], r[4], r[5]) for r in rows(found, online=True) if ".Online" in str(r[3])]


def test_births_and_deaths_are_states() -> None:
    found = read(
        born(place=NODE),
        born(metric(1.0, **TEMPERATURE), at=100),
        born(metric(1.0, **TEMPERATURE), place="G/E/D2", at=200),
        died("G/E/D2", at=300),
        died(NODE, at=2_000),
    )
    assert online(found) == [
        (0, "node.Online", 0, 1),
        (1, "D.Online", 100, 1),
        (2, "D2.Online", 200, 1),
        (3, "D2.Online", 300, 0),
        (4, "node.Online", 2_000, 0),
        (4, "D.Online", 2_000, 0),
    ]
    assert found.readings.quality[-1] == quality.GOOD_RECEIVE_TIME


def test_the_death_of_an_earlier_session_is_none() -> None:
    found = read(born(place=NODE, bd_seq=1), born(place=NODE, bd_seq=2, at=500), died(bd_seq=1))
    assert [row[3] for row in online(found)] == [1, 1]
    assert found.ignored["stale_death"] == 1
    assert read(born(place=NODE, bd_seq=2), died(bd_seq=None)).ignored["stale_death"] == 0


def gaps(found: Decoded) -> list[tuple[object, ...]]:
    return [
        (e.offset, e.topic, gap_in(e.payload).begin_ms - T, gap_in(e.payload).end_ms - T)
        for e in found.quarantine
        if e.reason == "gap"
    ]


def test_the_time_from_death_to_birth_is_a_gap() -> None:
    found = read(
        born(place=NODE),
        born(metric(1.0, **TEMPERATURE), at=100),
        died(DEVICE, at=200),
        born(metric(1.0, **TEMPERATURE), at=300),
        born(metric(1.0, **TEMPERATURE), at=400),
        died(NODE, at=2_000),
        born(place=NODE, at=5_000),
        born(metric(1.0, **TEMPERATURE), at=5_100),
        born(place=NODE, at=6_000),
        born(metric(1.0, **TEMPERATURE), at=6_100),
    )
    assert gaps(found) == [
        (3, "$gap/G/E/D", 220, 320),
        (6, "$gap/G/E", 2_000, 5_020),
        (7, "$gap/G/E/D", 2_000, 5_120),
    ]
    assert not found.reasons


def test_a_device_that_was_dead_before_its_node_was_born_again() -> None:
    found = read(
        born(place=NODE),
        born(metric(1.0, **TEMPERATURE), at=100),
        died(DEVICE, at=200),
        born(place=NODE, at=500),
        born(metric(1.0, **TEMPERATURE), at=600),
    )
    assert gaps(found) == [(4, "$gap/G/E/D", 220, 620)]


def test_a_device_whose_birth_has_overtaken_its_node_s_leaves_its_gap() -> None:
    found = read(
        born(place=NODE),
        born(metric(1.0, **TEMPERATURE), at=100),
        died(NODE, at=2_000),
        born(metric(1.0, **TEMPERATURE), at=5_000),
        born(place=NODE, at=5_000),
        died(NODE, at=7_000),
    )
    assert gaps(found) == [(3, "$gap/G/E/D", 2_000, 5_020), (4, "$gap/G/E", 2_000, 5_020)]
    assert [row[:2] for row in online(found)][-2:] == [(5, "node.Online"), (5, "D.Online")]


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("spBv1.0/H/DDATA/E/D", "bad_topic"),
        ("spBv1.0/G/NCMD/E", "bad_topic"),
        ("spBv1.0/STATE/host", "bad_topic"),
        ("spBv1.0/G/DDATA/E/\x01", "bad_name"),
    ],
)
def test_topics_that_are_none_of_the_line_s(topic: str, reason: str) -> None:
    found = read(Record("mqtt", topic, payload(ts=T), T * 1_000))
    assert reasons(found) == [(0, reason)]


def test_rubbish_is_set_aside_and_defines_nothing() -> None:
    found = read(
        born(metric(1.0, **TEMPERATURE)),
        spoken("DBIRTH", DEVICE, b"{not protobuf", T + 50),
        data(metric(2.0, datatype=10, alias=7)),
    )
    assert reasons(found) == [(1, "not_sparkplug")]
    assert [event.offset for event in found.lifecycle] == [0]
    assert len(rows(found)) == 2


def test_json_and_sparkplug_stand_beside_each_other_in_the_order_of_the_log() -> None:
    json_messages = [signal("pressure", T + i, 5.0 + i) for i in range(40)]
    found = read(
        *json_messages[:20],
        born(metric(1.0, **TEMPERATURE)),
        *json_messages[20:],
        data(metric(2.0, datatype=10, alias=7)),
    )
    assert found.readings.offset.tolist() == sorted(found.readings.offset.tolist())
    assert len(found.readings) == 43
    without = read(born(metric(1.0, **TEMPERATURE)), under=LineSettings(line="line1"))
    assert reasons(without) == [(0, "bad_topic")]
    assert len(without.lifecycle) == 1
