"""Payload shapes by kind: a JSON object in, named values out, or the reason why not.

A kind is chosen by the fields that are present. Names inside the payload never become keys: the
topic decides line, machine and device; names that disagree are counted by the caller.
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from iiot_platform.core import schema
from iiot_platform.core.errors import DecodeError

UNSET: Final = msgspec.UNSET
NAN: Final = math.nan
_INT64: Final = 2**63
OPERATIONS: Final = frozenset(
    {"ExtendCmdTime", "ExtendTime", "RetractCmdTime", "RetractTime", "Extend", "Retract"}
)
MAX_FIELDS: Final = 10_000
"""Numeric fields of one generic payload."""
HEADER_FIELDS: Final = frozenset({"LineName", "MachineName", "TimeStamp"})


class Values(NamedTuple):
    """What one payload says of one series.

    Attributes:
        kind: kind of device.
        field: field of a generic payload, appended to the device's name; else empty.
        operation: a valve's time type; else empty.
        values: floats in the order of `schema.VALUE_NAMES`; NaN where an optional one is absent.
        state: state value, 1 or 0 of an electrical device; None elsewhere.
        pulse: SynchPulse of an electrical device; None elsewhere.
    """

    kind: str
    field: str
    operation: str
    values: tuple[float, ...]
    state: int | None = None
    pulse: bool | None = None


class _Electrical(msgspec.Struct, frozen=True, gc=False):
    """Marks that electrical data is there; it is decoded in a second step."""


class Payload(msgspec.Struct, gc=False):
    """Every field that the known kinds have; what is absent stays UNSET."""

    LineName: Any = UNSET
    MachineName: Any = UNSET
    TimeStamp: float | int | None = None
    SensorName: Any = UNSET
    SensorValue: float | msgspec.UnsetType = UNSET
    StateName: Any = UNSET
    StateValue: int | bool | msgspec.UnsetType = UNSET
    VibAccelTotRmsX: float | msgspec.UnsetType = UNSET
    VibAccelTotRmsY: float | msgspec.UnsetType = UNSET
    VibAccelTotRmsZ: float | msgspec.UnsetType = UNSET
    VibAccelTotal_RMS_X: float | msgspec.UnsetType = UNSET
    VibAccelTotal_RMS_Y: float | msgspec.UnsetType = UNSET
    VibAccelTotal_RMS_Z: float | msgspec.UnsetType = UNSET
    SensorTemperature: float | None = None
    ValveName: Any = UNSET
    TimeType: Any = UNSET
    TimeValue: float | msgspec.UnsetType = UNSET
    DeviceName: Any = UNSET
    ElectricalData: _Electrical | msgspec.UnsetType = UNSET


ElectricalData: Final = msgspec.defstruct(
    "ElectricalData",
    [(name, float | None, None) for name in schema.ELECTRICAL_SCALARS]
    + [(name, list[float] | None, None) for name in schema.ELECTRICAL_HARMONICS],
    gc=False,
)


class ElectricalPayload(msgspec.Struct, gc=False):
    """An electrical device's payload."""

    DeviceState: str | bool
    ElectricalData: ElectricalData  # type: ignore[valid-type] # built from the schema
    SynchPulse: bool = False


_payload: Final = msgspec.json.Decoder(Payload)
_electrical: Final = msgspec.json.Decoder(ElectricalPayload)
_generic: Final = msgspec.json.Decoder(dict[str, Any])
_scalars: Final = attrgetter(*schema.ELECTRICAL_SCALARS)
_harmonics: Final = attrgetter(*schema.ELECTRICAL_HARMONICS)
_DEVICE_STATES: Final = {"Running": 1, "Stopped": 0, True: 1, False: 0}


def parse(payload: bytes) -> tuple[Payload, Sequence[Values]]:
    """The payload's header and the values of each of its series; none for a signal.

    Most payloads are signals, and theirs is `Payload.SensorValue`.

    Raises:
        DecodeError: the payload is no JSON object of a known shape; its `reason` says why.
    """
    try:
        head = _payload.decode(payload)
        return head, () if head.SensorValue is not UNSET else _values(head, payload)
    except msgspec.ValidationError as error:
        raise DecodeError(_reason(str(error)), str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("not_json", str(error)) from error
    except RecursionError as error:
        raise DecodeError("too_deep", "nested deeper than a device's payload can be") from error


def without_value(payload: bytes) -> tuple[Payload, Sequence[Values]] | None:
    """What a signal or state says whose source says that it has no value; None: something else.

    A signal's value is NaN, a state's stays None.
    """
    try:
        fields = _generic.decode(payload)
        nothing = [
            name for name in ("SensorValue", "StateValue") if fields.get(name, UNSET) is None
        ]
        if len(nothing) != 1:
            return None
        del fields[nothing[0]]
        head = msgspec.convert(fields, Payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if nothing == ["StateValue"]:
        return head, (Values(schema.STATE, "", "", ()),)
    head.SensorValue = NAN
    return head, ()


def _reason(message: str) -> str:
    if "out of range" in message:
        return "not_finite"
    if "missing required field" in message:
        return "missing_field"
    if message.startswith("Expected `object`") and "at `$" not in message:
        return "not_an_object"
    return "wrong_type"


def _values(head: Payload, payload: bytes) -> Sequence[Values]:
    if head.StateValue is not UNSET:
        state = int(head.StateValue)
        if not -_INT64 < state < _INT64:
            raise DecodeError("not_finite", f"StateValue {state!s:.40} does not fit 64 bits")
        return (Values(schema.STATE, "", "", (), state),)
    if head.ElectricalData is not UNSET:
        return (_electrical_values(_electrical.decode(payload)),)
    if head.TimeValue is not UNSET:
        if not isinstance(head.TimeType, str) or head.TimeType not in OPERATIONS:
            raise DecodeError(
                "unknown_operation",
                f"TimeType {head.TimeType!r:.80}; known are {', '.join(sorted(OPERATIONS))}",
            )
        return (Values(schema.VALVE, "", head.TimeType, (head.TimeValue,)),)
    axes = _axes(head)
    if axes is not None:
        temperature = NAN if head.SensorTemperature is None else head.SensorTemperature
        return (Values(schema.VIBRATION, "", "", (*axes, temperature)),)
    return _generic_values(_generic.decode(payload))


def _axes(head: Payload) -> tuple[float, float, float] | None:
    """The three axes under either naming, None where neither is there."""
    for axes in (
        (head.VibAccelTotRmsX, head.VibAccelTotRmsY, head.VibAccelTotRmsZ),
        (head.VibAccelTotal_RMS_X, head.VibAccelTotal_RMS_Y, head.VibAccelTotal_RMS_Z),
    ):
        x, y, z = axes
        if x is not UNSET and y is not UNSET and z is not UNSET:
            return x, y, z
        if any(axis is not UNSET for axis in axes):
            raise DecodeError("missing_field", "a vibration payload needs X, Y and Z")
    return None


def _electrical_values(payload: ElectricalPayload) -> Values:
    state = _DEVICE_STATES.get(payload.DeviceState)
    if state is None:
        raise DecodeError(
            "wrong_type", f"DeviceState {payload.DeviceState!r:.80}; known are Running and Stopped"
        )
    data: Any = payload.ElectricalData
    values = [NAN if value is None else value for value in _scalars(data)]
    for name, harmonics in zip(schema.ELECTRICAL_HARMONICS, _harmonics(data), strict=True):
        if harmonics is None:
            values.extend([NAN] * schema.HARMONICS)
        elif len(harmonics) == schema.HARMONICS:
            values.extend(harmonics)
        else:
            raise DecodeError(
                "wrong_type", f"{name} has {len(harmonics)} values, not {schema.HARMONICS}"
            )
    return Values(schema.ELECTRICAL, "", "", tuple(values), state, payload.SynchPulse)


def _generic_values(fields: dict[str, Any]) -> Sequence[Values]:
    found = []
    for name, value in fields.items():
        if name in HEADER_FIELDS or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        number = _finite(value)
        if number is not None:
            if not name:
                raise DecodeError("bad_name", "a field has an empty name")
            found.append(Values(schema.SIGNAL, name, "", (number,)))
    if not found:
        raise DecodeError("no_values", "no finite numeric field")
    if len(found) > MAX_FIELDS:
        raise DecodeError("too_many_fields", f"{len(found)} numeric fields, more than {MAX_FIELDS}")
    return found


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Gap(msgspec.Struct, frozen=True):
    """Messages may be missing from `begin_ms` to before `end_ms` (Unix ms).

    Attributes:
        filled: values that the source's history had, where the gap was filled from it.
        complete: True where that is all that was missing.
    """

    begin_ms: _Whole
    end_ms: _Whole
    reason: str
    filled: _Whole | None = None
    complete: bool | None = None


_gap: Final = msgspec.json.Decoder(Gap)


def gap_in(payload: bytes) -> Gap:
    """The gap that a record tells of.

    Raises:
        DecodeError: the record is not as the buffer writes it.
    """
    try:
        return _gap.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("wrong_type", f"not a gap: {error}") from error


def gap_payload(begin_ms: int, end_ms: int, reason: str) -> bytes:
    """A gap as the buffer writes it."""
    return msgspec.json.encode({"begin_ms": begin_ms, "end_ms": end_ms, "reason": reason})


class _Stamp(msgspec.Struct, gc=False):
    TimeStamp: Any = None


_stamp: Final = msgspec.json.Decoder(_Stamp)


def claimed_time(payload: bytes) -> int | None:
    """The time that a payload claims (Unix ms), whatever else is wrong with it; None: none."""
    try:
        stamp = _stamp.decode(payload).TimeStamp
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return None
    number = _finite(stamp)
    return None if number is None or abs(number) >= _INT64 else int(number)


def names_agree(head: Payload, line: str, machine: str, device: str) -> bool:
    """False where a name inside the payload differs from the topic's."""
    return (
        (head.LineName == line or head.LineName is UNSET)
        and (head.MachineName == machine or head.MachineName is UNSET)
        and (head.SensorName is UNSET or head.SensorName == device)
        and (head.StateName is UNSET or head.StateName == device)
        and (head.ValveName is UNSET or head.ValveName == device)
        and (head.DeviceName is UNSET or head.DeviceName == device)
    )
