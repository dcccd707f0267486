"""What a run of the demo proved: nothing lost, faults found, how late results were."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from iiot_platform.client import Client
from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.clock import MS_PER_S, from_ms
from iiot_platform.core.paths import Home
from iiot_platform.demo.progress import Published
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_reader import LogReader
from simulator.labels import Rows, Score, read_labels, score, series_key

TOLERANCE_MS: Final = 1_000
_UNTESTED: Final = ("warming", "bad_quality", "truncated", "low_coverage", "deleted")
_NAMES: Final = ("sensor_name", "device_name", "state_name")
_CHUNK: Final = 100_000


@dataclass(frozen=True)
class Latency:
    """Seconds from the time at the source to the commit of its batch, of `n` live rows."""

    p50: float | None
    p95: float | None
    n: int


@dataclass(frozen=True)
class Captured:
    """What the log has of an OPC UA line.

    Attributes:
        live: distinct values that came by subscription.
        history: records that were read from the server's history.
        gaps: gaps that were written.
    """

    live: int = 0
    history: int = 0
    gaps: int = 0


@dataclass(frozen=True)
class OpcUaCounts:
    """Values over OPC UA, which publishes by exception.

    Attributes:
        written: by the devices to their nodes.
        shown: distinct ones; what equals the value before is not published.
        captured: distinct ones in the log that came by subscription.
        history: records that were read from the server's history.
        gaps: records of gaps.
    """

    written: int
    shown: int
    captured: int
    history: int
    gaps: int


@dataclass(frozen=True)
class LineResult:
    """What one line has gained: records, batches, readings and rows that were flagged."""

    over: str
    captured: int
    batches: int
    readings: int
    anomalies: int


@dataclass(frozen=True)
class Outcome:
    """The demo's last line.

    Attributes:
        published: messages that the broker has acknowledged to the simulator.
        captured: records that the log has gained of the lines over MQTT.
        opcua: counts of the lines over OPC UA; None where there are none.
        lines: what each line has gained.
        duplicates_dropped: redeliveries that the buffer left out, and repeated readings that
            the batches did.
        rows: rows that the tables have gained.
        quarantined: messages set aside.
        anomalies: rows flagged.
        alerts: alerts that the demo has said to fire.
        recall: per type of fault the share of its episodes in which a row was flagged.
        recall_total: the same of all episodes.
        false_alarms: flagged rows outside of every fault.
        false_alarm_rate: their share of all tested rows outside of every fault.
        batches: live batches that were committed.
        failed_batches: live runs that Dagster counts as failed; None where it did not say.
        latency_s: of the live part.
        first_results_s: from the start of the demo to its first commit.
        seconds: length of the whole demo.
        problems: why it counts as failed; empty where all is well.
    """

    published: int
    captured: int
    opcua: OpcUaCounts | None
    lines: Mapping[str, LineResult]
    duplicates_dropped: int
    rows: Mapping[str, int]
    quarantined: int
    anomalies: int
    alerts: int
    recall: Mapping[str, float]
    recall_total: float | None
    false_alarms: int
    false_alarm_rate: float | None
    batches: int
    failed_batches: int | None
    latency_s: Latency
    first_results_s: float | None
    seconds: float
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)


def repeated(home: Home, line: str, lo: int, hi: int) -> int:
    """Records of [lo, hi) whose topic and payload stood in it before."""
    seen: set[tuple[str, bytes]] = set()
    for start in range(lo, hi, _CHUNK):
        records = LogReader(home).read(line, [(start, min(start + _CHUNK, hi))])
        topics = records.column("topic").to_pylist()
        seen.update(zip(topics, records.column("payload").to_pylist(), strict=True))
    return hi - lo - len(seen)


def losses(
    home: Home, published: Mapping[str, int], captured: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Lines whose log lacks a message that was published, each as a sentence."""
    found = []
    for line, count in published.items():
        lo, hi = captured.get(line, (0, 0))
        distinct = hi - lo - repeated(home, line, lo, hi)
        if distinct < count:
            found.append(f"line '{line}': {count} messages published, {distinct} captured")
    return found


def captured(home: Home, line: str, lo: int, hi: int) -> Captured:
    """What the offsets [lo, hi) of a line over OPC UA hold."""
    live: set[tuple[str, bytes, int]] = set()
    history = gaps = 0
    for start in range(lo, hi, _CHUNK):
        records = LogReader(home).read(line, [(start, min(start + _CHUNK, hi))])
        for topic, payload, source, kept in zip(
            records.column("topic").to_pylist(),
            records.column("payload").to_pylist(),
            records.column("source_ts").cast(pa.int64()).to_pylist(),
            records.column("retain").to_pylist(),
            strict=True,
        ):
            if topic.startswith(GAP_TOPIC):
                gaps += 1
            elif kept:
                history += 1
            else:
                live.add((topic, payload, source))
    return Captured(len(live), history, gaps)


def values_missing(shown: Mapping[str, int], captures: Mapping[str, Captured]) -> list[str]:
    """Lines whose log lacks a value that a subscriber was to get, each as a sentence."""
    return [
        f"line '{line}': {count} values shown by the OPC UA server, {captures[line].live} captured"
        f" ({captures[line].gaps} gaps in the log)"
        for line, count in shown.items()
        if captures[line].live < count
    ]


def opcua(served: Published, captures: Mapping[str, Captured]) -> OpcUaCounts | None:
    """The counts of all lines over OPC UA together."""
    if not captures:
        return None
    return OpcUaCounts(
        written=served.total,
        shown=sum(served.shown_per_line.values()),
        captured=sum(one.live for one in captures.values()),
        history=sum(one.history for one in captures.values()),
        gaps=sum(one.gaps for one in captures.values()),
    )


def latency(home: Home, lines: Iterable[str], live_since_ms: int | None) -> Latency:
    """How long after their time the readings of the live part were committed."""
    if live_since_ms is None or not Ledger.is_at(home):
        return Latency(None, None, 0)
    client, ledger = Client(home), Ledger.of(home)
    query = sa.select(db.BATCHES.c.run_id, db.BATCHES.c.committed_ms).where(
        db.BATCHES.c.kind == "live", db.BATCHES.c.committed_ms >= live_since_ms
    )
    with ledger.reading() as connection:
        committed = {row.run_id: row.committed_ms for row in connection.execute(query)}
    ledger.close()
    parts = [np.zeros(0)]
    for line in set(lines) & set(client.lines()):
        rows = client.table(line, schema.READINGS.name, start=from_ms(live_since_ms))
        at = rows["run_id"].map(committed).dropna()
        ts = _ms(rows["ts"])[at.index.to_numpy()]
        parts.append((at.to_numpy(np.float64) - ts) / MS_PER_S)
    client.close()
    seconds = np.concatenate(parts)
    if not len(seconds):
        return Latency(None, None, 0)
    p50, p95 = (round(float(q), 3) for q in np.quantile(seconds, (0.5, 0.95)))
    return Latency(p50, p95, len(seconds))


def found_faults(home: Home, labels: Path, lines: Iterable[str], start_ms: int) -> Score:
    """Labels of faults that begin at a time or later, compared with the rows that were tested."""
    wanted = (
        [label for label in read_labels(labels) if label.start_ms >= start_ms]
        if labels.exists()
        else []
    )
    return score(wanted, tested_rows(home, lines, start_ms), tolerance_ms=TOLERANCE_MS)


def tested_rows(home: Home, lines: Iterable[str], start_ms: int) -> Rows:
    """Every row that a detector has tested, flagged where any of its quantities is an anomaly."""
    names: list[np.ndarray[Any, Any]] = [np.zeros(0, np.str_)]
    times: list[np.ndarray[Any, Any]] = [np.zeros(0, np.int64)]
    flags: list[np.ndarray[Any, Any]] = [np.zeros(0, np.int64)]
    if Ledger.is_at(home):
        client = Client(home)
        for line in set(lines) & set(client.lines()):
            for table in schema.TABLES.values():
                flagged = [n for n in table.names("field") if n.endswith("anomaly")]
                if not flagged:
                    continue
                rows = client.table(line, table.name, start=from_ms(start_ms))
                rows = rows[~rows["status"].isin(_UNTESTED)]
                names.append(_series(rows, line))
                times.append(_ms(rows["ts"]))
                flags.append(rows[flagged].max(axis=1).to_numpy(np.int64))
        client.close()
    return Rows(np.concatenate(names), np.concatenate(times), np.concatenate(flags))


def _series(rows: pd.DataFrame, line: str) -> "np.ndarray[Any, Any]":
    name = next(column for column in _NAMES if column in rows.columns)
    operation = rows.get("operation_type", pd.Series("", index=rows.index))
    keys = [
        series_key(line, machine, device, operation)
        for machine, device, operation in zip(
            rows["machine_name"], rows[name], operation, strict=True
        )
    ]
    return np.array(keys, np.str_)


def _ms(times: pd.Series) -> "np.ndarray[Any, Any]":
    return (
        times.astype("int64").to_numpy() if times.dt.unit == "ms" else _ms(times.dt.as_unit("ms"))
    )


def recall(found: Score) -> tuple[dict[str, float], float | None]:
    """Share of the episodes that were found, per type of fault and of all."""
    each = {
        fault: round(share, 4)
        for fault, one in sorted(found.faults.items())
        if (share := one.episode_recall) is not None
    }
    episodes = sum(one.episodes for one in found.faults.values())
    hits = sum(one.episodes_found for one in found.faults.values())
    return each, round(hits / episodes, 4) if episodes else None


def fed_tables(kinds: Iterable[str]) -> set[str]:
    """The tables that these kinds of devices feed."""
    fed = {schema.READINGS.name, schema.LINE_SUMMARY.name}
    for kind in kinds:
        fed.update(_FED.get(kind, _FED[schema.SIGNAL]))
    return fed


_FED: Final[Mapping[str, tuple[str, ...]]] = {
    schema.SIGNAL: (schema.SIGNALS.name, schema.SIGNAL_ANOMALIES.name),
    schema.STATE: (schema.STATES.name,),
    schema.VIBRATION: (schema.VIBRATION_ANOMALIES.name,),
    schema.VALVE: (schema.VALVE_ANOMALIES.name,),
    schema.ELECTRICAL: (schema.ELECTRICAL_READINGS.name, schema.ELECTRICAL_CYCLES.name),
}
