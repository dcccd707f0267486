"""Sparkplug messages as another implementation writes them: Google's, from the public fields."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from iiot_platform.core.capture_log import Record

_DOUBLE, _FLOAT, _UINT64, _BOOL, _STRING, _MESSAGE, _BYTES, _UINT32 = 1, 2, 4, 8, 9, 11, 12, 13
_VALUES = (
    ("int_value", _UINT32),
    ("long_value", _UINT64),
    ("float_value", _FLOAT),
    ("double_value", _DOUBLE),
    ("boolean_value", _BOOL),
    ("string_value", _STRING),
)


def _classes() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="spb.proto", package="spb", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    properties = payload.nested_type.add(name="PropertySet")
    value = payload.nested_type.add(name="PropertyValue")
    dataset = payload.nested_type.add(name="DataSet")

    def add(
        of: Any, name: str, number: int, kind: int, *, many: bool = False, of_type: str = ""
    ) -> Any:
        return of.field.add(
            name=name,
            number=number,
            type=kind,
            label=3 if many else 1,
            type_name=f".spb.Payload.{of_type}" if of_type else None,
        )

    add(payload, "timestamp", 1, _UINT64)
    add(payload, "metrics", 2, _MESSAGE, many=True, of_type="Metric")
    add(payload, "seq", 3, _UINT64)
    add(payload, "uuid", 4, _STRING)
    add(payload, "body", 5, _BYTES)
    for name, number, kind in (
        ("name", 1, _STRING),
        ("alias", 2, _UINT64),
        ("timestamp", 3, _UINT64),
        ("datatype", 4, _UINT32),
        ("is_historical", 5, _BOOL),
        ("is_transient", 6, _BOOL),
        ("is_null", 7, _BOOL),
    ):
        add(metric, name, number, kind)
    add(metric, "properties", 9, _MESSAGE, of_type="PropertySet")
    metric.oneof_decl.add(name="value")
    for number, (name, kind) in enumerate((*_VALUES, ("bytes_value", _BYTES)), 10):
        add(metric, name, number, kind).oneof_index = 0
    add(metric, "dataset_value", 17, _MESSAGE, of_type="DataSet").oneof_index = 0
    add(properties, "keys", 1, _STRING, many=True)
    add(properties, "values", 2, _MESSAGE, many=True, of_type="PropertyValue")
    add(value, "type", 1, _UINT32)
    add(value, "is_null", 2, _BOOL)
    for number, (name, kind) in enumerate(_VALUES, 3):
        add(value, name, number, kind)
    add(dataset, "num_of_columns", 1, _UINT64)
    add(dataset, "columns", 2, _STRING, many=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"spb.Payload{part}") for part in ("", ".Metric")]
    return tuple(message_factory.GetMessageClass(one) for one in found)  # type: ignore[return-value]


PAYLOAD, METRIC = _classes()
FIELD_OF = {
    **dict.fromkeys((1, 2, 3, 5, 6), "int_value"),
    **dict.fromkeys((4, 7, 8, 13), "long_value"),
    9: "float_value",
    10: "double_value",
    11: "boolean_value",
    **dict.fromkeys((12, 14, 15), "string_value"),
}
BITS = {1: 32, 2: 32, 3: 32, 4: 64}


def metric(
    value: Any = None,
    *,
    datatype: int | None = None,
    name: str | None = None,
    alias: int | None = None,
    ts: int | None = None,
    quality: int | None = None,
    send_type: bool = True,
    **more: Any,
) -> Any:
    """A metric; negative integers as two's complement, `value` None: no value is sent."""
    built = METRIC(name=name, alias=alias, timestamp=ts, **more)
    if datatype is not None and send_type:
        built.datatype = datatype
    if value is not None and datatype is not None:
        if datatype in BITS:
            value &= (1 << BITS[datatype]) - 1
        setattr(built, FIELD_OF[datatype], value)
    if quality is not None:
        built.properties.keys.append("Quality")
        built.properties.values.add(type=3, int_value=quality)
    return built


def payload(*metrics: Any, ts: int | None = None, seq: int | None = None) -> bytes:
    """A payload."""
    body: bytes = PAYLOAD(timestamp=ts, metrics=metrics, seq=seq).SerializeToString()
    return body


def spoken(kind: str, place: str, body: bytes, received_ms: int) -> Record:
    """A message of `<group>/<edge node>[/<device>]`."""
    group, node, *device = place.split("/")
    topic = "/".join(("spBv1.0", group, kind, node, *device))
    return Record("mqtt", topic, body, received_ms * 1_000)
