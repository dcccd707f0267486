"""The tables, declared once: Parquet files, databases, dashboards and docs follow.

Every row has `ts` (UTC, ms), tags, fields and provenance. Measurement, tag and old field names
are those that dashboards of this kind already use, the misspelt `el_current_assymetry` included.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import pyarrow as pa

Role = Literal["time", "tag", "field", "provenance", "internal"]
"""`internal` columns stand in Parquet alone, never in a database."""

SIGNAL: Final = "signal"
STATE: Final = "state"
VIBRATION: Final = "vibration"
VALVE: Final = "valve"
ELECTRICAL: Final = "electrical"
KINDS: Final = (SIGNAL, STATE, VIBRATION, VALVE, ELECTRICAL)

TS: Final = pa.timestamp("ms", tz="UTC")
FLOAT: Final = pa.float64()
INT: Final = pa.int64()
TEXT: Final = pa.string()

STATUS: Final = "status"
DELETED: Final = "deleted"
"""Stands in `Table.mark` of a row that is gone, in a database that can not delete."""

PHASES: Final = (1, 2, 3)
HARMONICS: Final = 42

ELECTRICAL_TOTALS: Final = ("ActPowerTot", "ReactPowerTot", "ApparPowerTot", "PowerFact", "PQF")
ELECTRICAL_PHASE: Final = (
    "ActPowerL{n}",
    "ReactPowerL{n}",
    "ApparPowerL{n}",
    "CurrentL{n}",
    "VoltL{n}",
    "PowFactL{n}",
    "VoltL{n}_THD",
    "CurrentL{n}_THD",
)
ELECTRICAL_SCALARS: Final = ELECTRICAL_TOTALS + tuple(
    name.format(n=n) for n in PHASES for name in ELECTRICAL_PHASE
)
ELECTRICAL_HARMONICS: Final = tuple(f"CurrentL{n}_Harm" for n in PHASES)

VALUE_NAMES: Final[dict[str, tuple[str, ...]]] = {
    SIGNAL: ("value",),
    STATE: (),
    VIBRATION: ("x", "y", "z", "temperature"),
    VALVE: ("value",),
    ELECTRICAL: ELECTRICAL_SCALARS
    + tuple(f"{name}[{i}]" for name in ELECTRICAL_HARMONICS for i in range(HARMONICS)),
}
"""What stands, in this order, in `values` of a reading of each kind."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, its role, its unit and what it says."""

    name: str
    type: pa.DataType
    role: Role
    description: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table: its columns, and its InfluxDB measurement where it has one."""

    name: str
    measurement: str | None
    columns: tuple[Column, ...]
    description: str
    title: str
    kind: str | None = None
    """Kind of device whose series it holds alone."""

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the table's Parquet files; `Column.nullable` is checked on write."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])

    @cached_property
    def content(self) -> pa.Schema:
        """The same without provenance: what rows are compared by."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns if c.role != "provenance"])

    def names(self, *roles: Role) -> tuple[str, ...]:
        """The names of the columns of these roles, in order."""
        return tuple(c.name for c in self.columns if c.role in roles)

    @property
    def mark(self) -> str:
        """The column that says `DELETED` where a row is gone and can not be deleted."""
        return STATUS if STATUS in self.names("field") else PROVENANCE[0].name

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row: time and tags."""
        return self.names("time", "tag")

    def column(self, name: str) -> Column:
        """The column called `name`.

        Raises:
            KeyError: the table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table '{self.name}' has no column '{name}'")


def _time(description: str = "event time") -> Column:
    return Column("ts", TS, "time", description, "UTC, ms")


def _tag(name: str, description: str) -> Column:
    return Column(name, TEXT, "tag", description)


def _float(name: str, description: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(name, FLOAT, "field", description, unit, nullable)


def _int(name: str, description: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(name, INT, "field", description, unit, nullable)


def _text(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, TEXT, "field", description, nullable=nullable)


def verdict_fields(prefix: str = "", *, of: str = "the value") -> tuple[Column, ...]:
    """The six fields that every tested quantity has; `prefix` for tables with several."""
    return (
        _int(f"{prefix}anomaly", f"1 where {of} is an anomaly, else 0"),
        _float(f"{prefix}anomaly_ratio", "share of anomalies in the last flags", "0..1"),
        _float(f"{prefix}model_avg", "mean of the window that the value was tested against"),
        _float(f"{prefix}model_std", "standard deviation of that window (n - 1, floored)"),
        _float(f"{prefix}z_score", "(value - model_avg) / model_std", "std"),
        _float(f"{prefix}z_score_thresh", "threshold in force", "std"),
    )


def detector_fields() -> tuple[Column, ...]:
    """The fields of a table whose series are tested by one detector."""
    return (
        *verdict_fields(),
        _int("shift_event", "1 where a level shift was learnt anew at this row"),
        _int("off_reference", "1 from a shift until its level is acknowledged"),
        _text(STATUS, "warming, ok, bad_quality or relearned"),
    )


LINE: Final = _tag("line_name", "production line")
MACHINE: Final = _tag("machine_name", "machine level of the topic")
SENSOR: Final = _tag("sensor_name", "device level of the topic, or device.Field")
PROVENANCE: Final = (
    Column("run_id", TEXT, "provenance", "run that computed the row"),
    Column("config_version", TEXT, "provenance", "version of the settings it was computed under"),
)
SENSOR_TAGS: Final = (LINE, MACHINE, SENSOR)

SIGNALS = Table(
    "signals",
    "GenericSensor",
    (_time(), *SENSOR_TAGS, _float("value", "value as read"), *PROVENANCE),
    "Every reading of every signal as it came, whatever its quality.",
    "Signals",
    SIGNAL,
)
STATES = Table(
    "states",
    "GenericState",
    (
        _time(),
        LINE,
        MACHINE,
        _tag("state_name", "device level of the topic"),
        _int("value", "state as read; null where its source has none", nullable=True),
        _int(
            "previous_value",
            "state before this reading; the same where it did not change, null where none was read",
            nullable=True,
        ),
        _float("duration_s", "length of the state that ended here, 0 where none ended", "s"),
        *PROVENANCE,
    ),
    "Every reading of every state, with the length of the state that it ended.",
    "States",
    STATE,
)
SIGNAL_ANOMALIES = Table(
    "signal_anomalies",
    "SingleSensorAnalytics",
    (_time(), *SENSOR_TAGS, _float("value", "value as read"), *detector_fields(), *PROVENANCE),
    "Every signal reading with the verdict of its detector.",
    "Signal anomalies",
    SIGNAL,
)
VIBRATION_AXES: Final = ("x", "y", "z")
VIBRATION_ANOMALIES = Table(
    "vibration_anomalies",
    "VibSensor",
    (
        _time(),
        *SENSOR_TAGS,
        *(
            _float(f"vib_accel_rms_{axis}", f"RMS acceleration, {axis} axis", "as sent")
            for axis in VIBRATION_AXES
        ),
        _float("vib_accel_rms_total", "root of the sum of squares of the three axes", "as sent"),
        _float("sensor_temperature", "temperature of the sensor", "as sent", nullable=True),
        *detector_fields(),
        *(
            column
            for axis in VIBRATION_AXES
            for column in verdict_fields(f"vib_accel_rms_{axis}_", of=f"the {axis} axis")
        ),
        *PROVENANCE,
    ),
    "Every vibration reading; the unprefixed detector fields test the total.",
    "Vibration",
    VIBRATION,
)
VALVE_ANOMALIES = Table(
    "valve_anomalies",
    "AirValve",
    (
        _time(),
        *SENSOR_TAGS,
        _tag("operation_type", "ExtendCmdTime, ExtendTime, RetractCmdTime or RetractTime"),
        _float("value", "time that the operation took", "ms"),
        *detector_fields(),
        *PROVENANCE,
    ),
    "Every valve operation, tested per valve and operation.",
    "Air valves",
    VALVE,
)
DEVICE_TAGS: Final = (LINE, MACHINE, _tag("device_name", "device level of the topic"))
ELECTRICAL_READINGS = Table(
    "electrical_readings",
    "ElectricalDevice",
    (
        _time(),
        *DEVICE_TAGS,
        *(_float(name, "as sent", nullable=True) for name in ELECTRICAL_SCALARS),
        _int("device_state", "1 while the device runs, else 0"),
        *PROVENANCE,
    ),
    "The scalar values of every electrical reading; harmonics stand in `readings`.",
    "Electrical readings",
    ELECTRICAL,
)


def _cycle_phase(n: int) -> tuple[Column, ...]:
    integral = f"el_current_integral_ph{n}"
    inrush = f"el_inrush_current_ph{n}"
    return (
        _float(integral, f"current-time integral of the cycle, phase {n}", "A·s"),
        *verdict_fields(f"{integral}_", of=f"the integral of phase {n}"),
        _float(inrush, f"inrush current of the cycle, phase {n}", "A"),
        *verdict_fields(f"{inrush}_", of=f"the inrush current of phase {n}"),
        _float(f"el_inrush_first_ph{n}", f"maximum at the start of the cycle, phase {n}", "A"),
    )


ELECTRICAL_CYCLES = Table(
    "electrical_cycles",
    "ElectricalAnalytics",
    (
        _time("time of the reading that closed the cycle"),
        *DEVICE_TAGS,
        *(column for n in PHASES for column in _cycle_phase(n)),
        _float("el_current_assymetry", "100·Σ|In-Ī|/Ī of the mean currents", "%", nullable=True),
        _float("el_current_unbalance", "100·max|In-Ī|/Ī (NEMA MG 1)", "%", nullable=True),
        _float("cycle_s", "first to last sample of the cycle", "s"),
        _int("samples", "readings in the cycle"),
        _float("coverage", "share of the cycle that samples cover", "0..1"),
        _float("max_gap_s", "longest interval between two samples", "s"),
        _text(STATUS, "warming, ok, relearned, truncated, low_coverage or bad_quality"),
        *PROVENANCE,
    ),
    "One row per machine cycle, each phase's integral and inrush current tested.",
    "Electrical cycles",
    ELECTRICAL,
)
LINE_SUMMARY = Table(
    "line_summary",
    "LineSummary",
    (
        _time("start of the interval of 10 s"),
        LINE,
        _int("readings", "readings with an event time in the interval"),
        _int("devices", "series that had a reading"),
        _float("lateness_mean_s", "mean of receive time minus event time", "s"),
        _float("lateness_max_s", "largest receive time minus event time", "s"),
        _int("anomalies", "rows flagged as an anomaly"),
        _int("quarantined", "messages set aside, by receive time"),
        _int("state_changes", "states that ended"),
        _float("running_share", "running time / known time of the line's states", "0..1"),
        _float("known_share", "known time / (states x interval)", "0..1"),
        _float(
            "missing_s",
            "length of the gaps that were written in the interval; below 0 where the source's "
            "history has closed one",
            "s",
        ),
        *PROVENANCE,
    ),
    "What a line did in each 10 s of event time.",
    "Line summary",
)
READINGS = Table(
    "readings",
    None,
    (
        _time(),
        Column("offset", INT, "internal", "offset of the message in the line's capture log"),
        Column("sub", pa.int16(), "internal", "place within the message, for several signals"),
        Column("received_ts", TS, "internal", "receive time at the buffer", "UTC, ms"),
        Column("topic", TEXT, "internal", "topic, or mapped path of an OPC UA node"),
        MACHINE,
        Column("kind", TEXT, "internal", "signal, state, vibration, valve or electrical"),
        Column("name", TEXT, "internal", "device, or device.Field"),
        Column("operation", TEXT, "internal", "time type of a valve, else empty"),
        Column("quality", pa.uint32(), "internal", "OPC UA StatusCode"),
        Column(
            "state",
            INT,
            "internal",
            "a state's value, or 1 or 0 of an electrical device",
            nullable=True,
        ),
        Column(
            "pulse", pa.bool_(), "internal", "SynchPulse of an electrical device", nullable=True
        ),
        Column("values", pa.list_(FLOAT), "internal", "values in the order of VALUE_NAMES"),
        Column("payload_hash", pa.uint64(), "internal", "hash of the payload bytes"),
        *PROVENANCE,
    ),
    "Every decoded reading, harmonics included; reruns start here when raw is gone.",
    "Readings",
)
QUARANTINE = Table(
    "quarantine",
    None,
    (
        _time("receive time of the message"),
        Column("offset", INT, "internal", "offset of the message in the line's capture log"),
        Column("topic", TEXT, "internal", "topic, or mapped path of an OPC UA node"),
        Column("payload", pa.binary(), "internal", "payload bytes, untouched"),
        Column("reason", TEXT, "internal", "why it was set aside; a bounded set of words"),
        Column("detail", TEXT, "internal", "what exactly was wrong"),
        *PROVENANCE,
    ),
    "Messages that could not be decoded, raw, with the reason.",
    "Quarantine",
)
LATE_ROWS = Table(
    "late_rows",
    None,
    (
        _time(),
        Column("offset", INT, "internal", "offset of the message in the line's capture log"),
        Column("received_ts", TS, "internal", "receive time at the buffer", "UTC, ms"),
        Column("topic", TEXT, "internal", "topic, or mapped path of an OPC UA node"),
        Column("series", TEXT, "internal", "series key"),
        Column("lateness_s", FLOAT, "internal", "receive time minus event time", "s"),
        *PROVENANCE,
    ),
    "Readings that were received after their hour had ended and the grace was over.",
    "Late rows",
)
GAPS = Table(
    "gaps",
    None,
    (
        _time("when the gap was written: the source was back"),
        Column("offset", INT, "internal", "offset of the record in the line's capture log"),
        Column("source", TEXT, "internal", "source in the plant file"),
        Column("begin_ts", TS, "internal", "from here messages may be missing", "UTC, ms"),
        Column("end_ts", TS, "internal", "before this messages may be missing", "UTC, ms"),
        Column("duration_s", FLOAT, "internal", "length of the gap", "s"),
        Column("reason", TEXT, "internal", "why, as the buffer saw it"),
        Column(
            "filled",
            INT,
            "internal",
            "values that the source's history had; null while the gap is open",
            nullable=True,
        ),
        Column(
            "complete",
            pa.bool_(),
            "internal",
            "true where they are all that was missing; null while the gap is open",
            nullable=True,
        ),
        *PROVENANCE,
    ),
    "Intervals in which messages of a source may be missing, and why.",
    "Gaps",
)
LATE: Final = "late"
GAP: Final = "gap"
"""Reasons in `data_quality` beside those of the quarantine: late readings, and gaps."""
DATA_QUALITY = Table(
    "data_quality",
    "DataQuality",
    (
        _time("start of the interval of 10 s"),
        LINE,
        _tag("reason", "why messages were set aside (by receive time), or late (by event time)"),
        _int("count", "how many"),
        *PROVENANCE,
    ),
    "How much was set aside or came late in each 10 s, by reason.",
    "Data quality",
)
ACTIVITY = Table(
    "activity",
    None,
    (
        _time("start of the interval of 10 s"),
        Column("series", TEXT, "internal", "series key, or the reason why messages were set aside"),
        Column("readings", INT, "internal", "readings in the interval"),
        Column("lateness_sum_ms", INT, "internal", "sum of receive time minus event time"),
        Column("lateness_max_ms", INT, "internal", "maximum of it"),
        Column("anomalies", INT, "internal", "rows flagged"),
        Column("quarantined", INT, "internal", "messages set aside"),
        Column("late", INT, "internal", "readings that came late"),
        Column("state_changes", INT, "internal", "states that ended"),
        Column("running_ms", INT, "internal", "known time in a running state"),
        Column("known_ms", INT, "internal", "time with a known state"),
        Column("missing_ms", INT, "internal", "length of gaps that opened less those closed"),
        *PROVENANCE,
    ),
    "What each series did in each 10 s: whole numbers, so that sums are exact; feeds the summary.",
    "Activity",
)
SETTINGS_CHANGED: Final = "settings_changed"
EVENTS: Final = Table(
    "events",
    "Events",
    (
        _time("where it begins in event time"),
        LINE,
        _tag("kind", "settings_changed, rerun, backfill, settle or gap"),
        _text("text", "what happened"),
        _text("hour", "the hour's partition in Dagster"),
        _int("until_ms", "where it ends in event time", "Unix ms"),
        *PROVENANCE,
    ),
    "What happened to a line's hours. Provenance: in databases alone, and no part of any result.",
    "Events",
)
"""No table of `TABLES`: it is told from the ledger, and nothing is computed from it."""

TABLES: Final[dict[str, Table]] = {
    table.name: table
    for table in (
        READINGS,
        SIGNALS,
        STATES,
        SIGNAL_ANOMALIES,
        VIBRATION_ANOMALIES,
        VALVE_ANOMALIES,
        ELECTRICAL_READINGS,
        ELECTRICAL_CYCLES,
        LINE_SUMMARY,
        QUARANTINE,
        LATE_ROWS,
        GAPS,
        DATA_QUALITY,
        ACTIVITY,
    )
}
SUMMARY_INTERVAL_MS: Final = 10_000


def measured() -> Iterable[Table]:
    """The tables that also stand in databases: those that have an InfluxDB measurement."""
    return (table for table in TABLES.values() if table.measurement is not None)
