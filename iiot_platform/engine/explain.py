"""Why a row is as it is: its run, settings, window, raw messages and earlier versions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.analytics.detector import Quantity, decode_state, detector
from iiot_platform.analytics.rows import floats_of
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, hour_of, to_ms
from iiot_platform.core.errors import AnalysisError, StorageError, nearest
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.parameters import Parameters
from iiot_platform.engine import lineage
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lineage import BatchRecord, FileRecord
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.partition import compute
from iiot_platform.engine.readings import Bools, Ints, Readings
from iiot_platform.engine.series.detection import Tested, signature
from iiot_platform.engine.table_store import TableStore, of_series
from iiot_platform.engine.traces import tested_columns

EXPLAINED: Final = tuple(table for table in schema.TABLES.values() if table.kind is not None)
"""The tables whose rows belong to a series."""
_NAME_TAGS: Final = ("sensor_name", "state_name", "device_name")
_MESSAGES: Final = 20
"""Raw messages that are shown at most: a cycle has thousands."""
_TOTAL: Final = "total"
"""How a vibration sensor's state calls the detector of the total."""


class Window(NamedTuple):
    """What a value was tested against: the accepted values of the moment, oldest first.

    `mean` and `std` are the model's, floored; None while it was being learnt.
    """

    quantity: str
    mean: float | None
    std: float | None
    values: tuple[float, ...]


class RawMessage(NamedTuple):
    """A message of the log.

    `file` is the one that holds it now: compaction moves it to another, the offset stands. It is
    None and `payload` empty where the message is gone; `gone` says why, as far as that is known.
    """

    offset: int
    topic: str
    received_ms: int
    payload: bytes
    file: str | None
    gone: str = ""


class Version(NamedTuple):
    """How the row stood in a stretch of the hour's versions.

    Attributes:
        added_version: version of the hour that it came with.
        dropped_version: version in which it was replaced; None: it stands.
        dropped_ms: when that was, Unix ms.
        row: the row; None where its file is gone.
    """

    added_version: int
    dropped_version: int | None
    dropped_ms: int | None
    row: dict[str, Any] | None


@dataclass(frozen=True)
class Explanation:
    """Everything that is known about one row.

    Attributes:
        line: name of the line.
        table: name of the table.
        series: whose row it is.
        ts: its event time, Unix ms.
        exact: False where it is the nearest before the time that was asked for.
        row: its columns.
        batches: the batches of its run that wrote the hour, oldest first.
        settings: those it was computed under; None where they are not known any more.
        parameters: the settings in force for the series, by part (`detector`, `cycle`, `state`).
        windows: what each tested quantity was tested against; empty where nothing is tested.
        window_note: why there is none, where there should be one.
        messages: number of raw messages that the row is made of.
        raw: the last of them.
        versions: how the row stood, oldest first; the last one stands.
    """

    line: str
    table: str
    series: SeriesKey
    ts: int
    exact: bool
    row: dict[str, Any]
    batches: list[BatchRecord]
    settings: LineSettings | None
    parameters: dict[str, Parameters]
    windows: list[Window]
    window_note: str
    messages: int
    raw: list[RawMessage]
    versions: list[Version]

    @property
    def ever_different(self) -> bool:
        """True where an earlier version had other values."""
        own = ("run_id", "config_version")
        rows = [version.row for version in self.versions if version.row is not None]
        return any(
            row[name] != self.row[name] for row in rows for name in self.row if name not in own
        )


class Explainer:
    """Explains rows of one line's tables; reads alone."""

    def __init__(self, log: LogReader, ledger: Ledger, store: TableStore, line: str) -> None:
        self._log = log
        self._ledger = ledger
        self._store = store
        self._line = line

    def series(self, table: schema.Table, text: str) -> SeriesKey:
        """The series that a text names: `machine/name[/operation]`, or a part that is clear.

        Raises:
            AnalysisError: it names none, or several.
        """
        known = {
            "/".join(part for part in key[1:] if part): key
            for key in lineage.series_of_line(self._ledger, self._line)
            if key.kind == table.kind
        }
        if text in known:
            return known[text]
        found = [name for name in known if f"/{text}/" in f"/{name}/"]
        if len(found) == 1:
            return known[found[0]]
        if found:
            raise AnalysisError(f"'{text}' names several series: {', '.join(sorted(found))}")
        raise AnalysisError(
            f"'{table.name}' of '{self._line}' has no series '{text}'; {nearest(text, known)}"
        )

    def newest(self, table: schema.Table, at_ms: int) -> SeriesKey:
        """The series of the newest row of a table at or before a time.

        Raises:
            AnalysisError: the table has no row at or before that time.
            StorageError: tables or ledger can not be read.
        """
        for hour in reversed(self._ledger.hours(self._line)):
            if hour > hour_of(at_ms):
                continue
            files = self._ledger.files(self._line, table.name, hour)
            rows = self._store.read(table, [file.path for file in files])
            before = rows.filter(pc.less_equal(pc.cast(rows.column("ts"), pa.int64()), at_ms))
            if len(before):
                row = before.sort_by("ts").slice(len(before) - 1)
                return _series_of(table, row.to_pylist()[0])
        raise AnalysisError(
            f"'{table.name}' of '{self._line}' has no row at or before"
            f" {from_ms(at_ms):%Y-%m-%d %H:%M:%S}Z; ask for a later time"
        )

    def explain(self, table: schema.Table, series: SeriesKey, at_ms: int) -> Explanation:
        """The row of a series at a time, or the nearest one before it.

        Raises:
            AnalysisError: the series has no row at or before that time.
            StorageError: tables or ledger can not be read.
        """
        hour, row = self._row(table, series, at_ms)
        ts = _ms(row)
        settings = lineage.settings_of(self._ledger, self._line, row["config_version"])
        readings = self._readings(series, hour)
        windows, note = self._windows(table, series, hour, ts, readings, settings)
        sources = self._sources(table, series, hour, row, readings)
        return Explanation(
            line=self._line,
            table=table.name,
            series=series,
            ts=ts,
            exact=ts == at_ms,
            row=row,
            batches=lineage.batches_of_run(self._ledger, self._line, row["run_id"], hour),
            settings=settings,
            parameters={} if settings is None else _parameters(settings, series),
            windows=windows,
            window_note=note,
            messages=len(sources),
            raw=[self._message(*source) for source in sources[-_MESSAGES:]],
            versions=list(self._versions(table, series, hour, ts)),
        )

    def _row(
        self, table: schema.Table, series: SeriesKey, at_ms: int
    ) -> tuple[int, dict[str, Any]]:
        for hour in lineage.hours_of_series(self._ledger, self._line, series, hour_of(at_ms)):
            files = self._ledger.files(self._line, table.name, hour)
            rows = of_series(table, self._store.read(table, [f.path for f in files]), [series])
            times = pc.cast(rows.column("ts"), pa.int64())
            before = rows.filter(pc.less_equal(times, at_ms)).sort_by("ts")
            if len(before):
                return hour, before.slice(len(before) - 1).to_pylist()[0]
        raise AnalysisError(
            f"'{table.name}' of '{self._line}' has no row of {series.machine}/{series.name} at or"
            f" before {from_ms(at_ms):%Y-%m-%d %H:%M:%S}Z; ask for a later time"
        )

    def _readings(self, series: SeriesKey, hour: int) -> Readings:
        files = self._ledger.files(self._line, schema.READINGS.name, hour)
        rows = self._store.read(schema.READINGS, [file.path for file in files])
        return Readings.from_table(of_series(schema.READINGS, rows, [series]))

    def _windows(
        self,
        table: schema.Table,
        series: SeriesKey,
        hour: int,
        ts: int,
        readings: Readings,
        settings: LineSettings | None,
    ) -> tuple[list[Window], str]:
        """The detectors' state just before the row: the hour computed again up to it."""
        if not tested_columns(table):
            return [], ""
        if settings is None:
            return [], "the settings that the row was computed under are not known any more"
        before = readings.take(readings.ts < ts)
        base = self._ledger.states(self._line, [series], before=hour)
        states = {key: stored.state.blob for key, stored in base.items()}
        if len(before):
            states = {
                key: state.blob for key, state in compute(before, states, settings).states.items()
            }
        if series not in states:
            return [], "it is the first row of its series"
        tested = _tested(series, states[series])
        if tested is None:
            return [], "nothing of its series was tested before"
        parameters = settings.detector(series)
        if tested.signature != signature(parameters):
            return [], "the state before it was made by another detector: it started anew here"
        windows = []
        for name, blob in tested.states.items():
            state = decode_state(parameters, blob)
            model = detector(parameters, quantity=_quantity(series, name)).model(state)
            values = tuple(floats_of(state.window).tolist())
            mean, std = model or (None, None)
            windows.append(Window(name, mean, std, values))
        return windows, ""

    def _sources(
        self, table: schema.Table, series: SeriesKey, hour: int, row: dict[str, Any], own: Readings
    ) -> list[tuple[int, str, int]]:
        """Offset, topic and receive time of the messages that a row is made of, in order."""
        ts = _ms(row)
        found = _messages(own, own.ts == ts)
        if table is not schema.ELECTRICAL_CYCLES:
            return found
        samples = _cycle(own, ts, row["samples"])
        for earlier in lineage.hours_of_series(self._ledger, self._line, series, hour - 1):
            if len(samples) >= row["samples"]:
                break
            readings = self._readings(series, earlier)
            samples = _cycle(readings, ts, row["samples"] - len(samples)) + samples
        return samples + found

    def _message(self, offset: int, topic: str, received_ms: int) -> RawMessage:
        if offset < self._log.start(self._line):
            return RawMessage(offset, topic, received_ms, b"", None, "retention")
        if not self._log.present(self._line, [(offset, offset + 1)]):
            return RawMessage(offset, topic, received_ms, b"", None, "its file was damaged")
        try:
            segments = self._log.segments(self._line, offset, offset + 1)
            payload = self._log.read(self._line, [(offset, offset + 1)]).column("payload")[0]
        except StorageError:
            return RawMessage(offset, topic, received_ms, b"", None)
        return RawMessage(offset, topic, received_ms, payload.as_py(), str(segments[0].path))

    def _versions(
        self, table: schema.Table, series: SeriesKey, hour: int, ts: int
    ) -> Iterator[Version]:
        """The row in every file that holds or held it; one that was only copied counts once."""
        last: Version | None = None
        for file in lineage.files_of(self._ledger, self._line, table.name, hour):
            if not file.min_ts <= ts <= file.max_ts:
                continue
            row, is_there = self._row_in(table, series, file, ts)
            if row is None and is_there:
                continue
            if last is not None and last.row == row and last.dropped_version == file.added_version:
                last = last._replace(
                    dropped_version=file.dropped_version, dropped_ms=file.dropped_ms
                )
                continue
            if last is not None:
                yield last
            last = Version(file.added_version, file.dropped_version, file.dropped_ms, row)
        if last is not None:
            yield last

    def _row_in(
        self, table: schema.Table, series: SeriesKey, file: FileRecord, ts: int
    ) -> tuple[dict[str, Any] | None, bool]:
        """The row in a file, and whether the file is there at all."""
        if not self._store.path(file.path).exists():
            return None, False
        rows = of_series(table, self._store.read(table, [file.path]), [series])
        rows = rows.filter(pc.equal(pc.cast(rows.column("ts"), pa.int64()), ts))
        return (rows.to_pylist()[0] if len(rows) else None), True


def _tested(series: SeriesKey, blob: bytes) -> Tested | None:
    """The detectors in a state; a device's stand beside its open cycle."""
    if series.kind != schema.ELECTRICAL:
        return msgspec.msgpack.decode(blob, type=Tested)
    found = msgspec.msgpack.decode(blob)["tested"]
    return None if found is None else msgspec.convert(found, Tested)


def _quantity(series: SeriesKey, name: str) -> Quantity:
    if series.kind == schema.VIBRATION and name == _TOTAL:
        return Quantity.VIBRATION_TOTAL
    return Quantity(series.kind)


def _parameters(settings: LineSettings, series: SeriesKey) -> dict[str, Parameters]:
    """The settings in force for a series, by part."""
    if series.kind == schema.STATE:
        return {"state": settings.state(series)}
    found: dict[str, Parameters] = {"detector": settings.detector(series)}
    if series.kind == schema.ELECTRICAL:
        found["cycle"] = settings.cycle(series)
    return found


def _cycle(readings: Readings, ts: int, samples: int) -> list[tuple[int, str, int]]:
    """The last running readings before a cycle's end, at most so many."""
    running = np.flatnonzero((readings.ts < ts) & (readings.state == 1))
    latest = running[np.argsort(readings.ts[running], kind="stable")][-samples:]
    return _messages(readings, latest)


def _messages(readings: Readings, chosen: Ints | Bools) -> list[tuple[int, str, int]]:
    rows = readings.take(chosen)
    found = zip(rows.offset.tolist(), rows.topic.tolist(), rows.received.tolist(), strict=True)
    return [(offset, rows.topics[topic], received) for offset, topic, received in found]


def _series_of(table: schema.Table, row: Mapping[str, Any]) -> SeriesKey:
    """The series of a row of a table of series."""
    name = next(row[tag] for tag in table.names("tag") if tag in _NAME_TAGS)
    operation = row.get("operation_type") or ""
    return SeriesKey(table.kind or "", row["machine_name"], name, operation)


def _ms(row: dict[str, Any]) -> int:
    return to_ms(row["ts"])
