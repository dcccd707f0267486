"""One hour's change: from readings and what stands already to the files and states to commit."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import (
    data_quality,
    gap_activity,
    merge,
    quarantine_activity,
    summarise,
)
from iiot_platform.engine.commit import (
    Base,
    CurrentFile,
    FileChange,
    HourChange,
    Operation,
    StoredState,
)
from iiot_platform.engine.decode import Quarantined, quarantine_rows
from iiot_platform.engine.gaps import gap_rows
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.partition import NO_ROWS, HourRows, SeriesState, compute
from iiot_platform.engine.payloads import gap_in
from iiot_platform.engine.readings import Readings, concat
from iiot_platform.engine.table_store import (
    TableStore,
    of_series,
    with_provenance,
    without_series,
)

_FAN_IN: Final = 16
"""Files of one level that are merged into one of the next: a few dozen an hour stay open."""


@dataclass(frozen=True)
class Provenance:
    """Marks of the rows that a run computes."""

    run_id: str
    config_version: str


@dataclass(frozen=True)
class WholeHour:
    """An hour computed from its start; nothing is written yet.

    Attributes:
        hour: the hour.
        base_version: version of the partition that it was computed beside.
        settings: those it is computed under.
        before: the states that stand in the hour.
        bases: per series the state that it started from, None where it started anew.
        rows: what was computed, quarantine and summaries included.
        kept_below: raw records before this offset were gone, and what they had decoded to was
            taken instead; 0: all were there.
    """

    hour: int
    base_version: int
    settings: LineSettings
    before: Mapping[SeriesKey, SeriesState]
    bases: Mapping[SeriesKey, Base | None]
    rows: HourRows
    kept_below: int = 0


class HourBuilder:
    """Builds one change of an hour of one line; writes files, commits nothing."""

    def __init__(self, ledger: Ledger, store: TableStore, line: str) -> None:
        self._ledger = ledger
        self._store = store
        self._line = line
        self._listed: dict[int, dict[str, list[CurrentFile]]] = {}

    def whole(
        self,
        hour: int,
        version: int,
        readings: Readings,
        quarantined: tuple[Quarantined, ...],
        known: Mapping[SeriesKey, StoredState],
        settings: LineSettings,
    ) -> WholeHour:
        """The hour computed from its start.

        Args:
            hour: the hour.
            version: that of the partition before anything else of the hour was read.
            readings: all of the hour's, in any order.
            quarantined: messages set aside that were received in the hour.
            known: states of earlier hours that the ledger does not have yet.
            settings: those it is to be computed under.
        """
        before = self._ledger.states_of(self._line, hour)
        bases = self._ledger.states(self._line, {*readings.keys, *before}, before=hour)
        bases |= {key: stored for key, stored in known.items() if stored.hour < hour}
        rows = compute(readings, {key: base.state.blob for key, base in bases.items()}, settings)
        tables = dict(rows.tables)
        activity = [rows.activity]
        if quarantined:
            tables |= _set_aside(quarantined)
            activity += _quarantine_activity(quarantined)
        self._summarise(tables, merge(activity))
        return WholeHour(
            hour=hour,
            base_version=version,
            settings=settings,
            before=before,
            bases={key: _base(bases.get(key)) for key in rows.states},
            rows=replace(rows, tables=tables),
        )

    def standing(
        self, table: schema.Table, hour: int, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of a table that stand in an hour; without provenance, or some columns.

        Raises:
            StorageError: a file is missing or damaged.
        """
        paths = [file.path for file in self._files(table, hour)]
        return self._store.read(table, paths, columns or table.content.names)

    def replacement(
        self, computed: WholeHour, run_id: str, *, settled: bool, equal: Container[str] = ()
    ) -> HourChange:
        """The change that puts a computed hour in the place of what stands.

        Args:
            computed: the hour.
            run_id: goes on every row.
            settled: True where the hour has closed for good.
            equal: tables whose rows stand already. Their parts become one file, one file is
                kept, and the database behind them has nothing to do.
        """
        hour, rows = computed.hour, computed.rows
        marks = Provenance(run_id, computed.settings.version)
        files = []
        for table in schema.TABLES.values():
            if table.name not in equal:
                files.append(
                    self._replace(hour, table, rows.tables.get(table.name), marks, kept=None)
                )
            elif len(self._files(table, hour)) > 1:
                file = self._replace(hour, table, rows.tables.get(table.name), marks, kept=None)
                files.append(None if file is None else replace(file, operation=None))
        return HourChange(
            hour=hour,
            base_version=computed.base_version,
            settings=computed.settings,
            bases=computed.bases,
            states=rows.states,
            files=tuple(file for file in files if file is not None),
            gone=tuple(key for key in computed.before if key not in rows.states),
            settled=settled,
            whole=True,
            rows=_lengths(rows.tables),
            anomalies=_anomalies(rows.activity),
            kept_below=computed.kept_below,
        )

    def extend(
        self,
        hour: int,
        version: int,
        readings: Readings,
        quarantined: tuple[Quarantined, ...],
        known: Mapping[SeriesKey, StoredState],
        settings: LineSettings,
        run_id: str,
    ) -> tuple[HourChange, Counter[str]]:
        """The hour with new readings: each series goes on, or restarts where order asks for it.

        Args:
            hour: the hour.
            version: that of the partition before anything else of the hour was read.
            readings: new ones of the hour, of series that have not gone on to a later hour.
            quarantined: messages set aside that were received in the hour.
            known: the last state of each series so far, those of this batch included.
            settings: those assigned to the hour.
            run_id: goes on every row.
        """
        counts: Counter[str] = Counter()
        onward, restarts = self._sort_out(hour, readings, known, counts)
        states = {key: stored.state.blob for key, stored in known.items()}
        rows = compute(onward, states, settings)
        bases = {
            key: _base(known.get(key))
            for key in rows.states
            if key not in known or known[key].hour < hour
        }
        again = NO_ROWS
        if len(restarts):
            again, more = self._restart(hour, restarts, settings)
            bases |= more
        restarted = tuple(again.states)
        counts += rows.counts + again.counts
        new = _joined(rows.tables, again.tables)
        activity = [rows.activity, again.activity]
        if quarantined:
            new |= _set_aside(quarantined)
            activity += _quarantine_activity(quarantined)
        marks = Provenance(run_id, settings.version)
        files = [
            self._append(hour, schema.TABLES[name], table, marks)
            if name not in again.tables
            else self._replace(hour, schema.TABLES[name], table, marks, kept=restarted)
            for name, table in new.items()
        ]
        kept = without_series(
            schema.ACTIVITY, self._current(schema.ACTIVITY, hour), restarted
        ).drop_columns(list(schema.ACTIVITY.names("provenance")))
        whole: dict[str, pa.Table] = {}
        self._summarise(whole, merge([kept, *activity]))
        if not _says_quality(activity):
            del whole[schema.DATA_QUALITY.name]
        files += [
            self._replace(hour, schema.TABLES[name], whole[name], marks, kept=None, upsert=True)
            for name in whole
        ]
        change = HourChange(
            hour=hour,
            base_version=version,
            settings=settings,
            bases=bases,
            states=rows.states | again.states,
            files=tuple(file for file in files if file is not None),
            rows=_lengths(new | whole),
            anomalies=_anomalies(merge(activity)),
        )
        return change, counts

    def _sort_out(
        self,
        hour: int,
        readings: Readings,
        known: Mapping[SeriesKey, StoredState],
        counts: Counter[str],
    ) -> tuple[Readings, Readings]:
        """Readings that go on from their series' frontier, and readings of series that restart.

        A series whose readings only repeat what came before does neither.
        """
        frontier = np.array(
            [
                known[key].state.frontier if key in known and known[key].hour == hour else -1
                for key in readings.keys
            ],
            np.int64,
        )
        behind = np.zeros(len(readings.keys), np.bool_)
        behind[readings.series[readings.ts <= frontier[readings.series]]] = True
        disordered = behind[readings.series]
        if not disordered.any():
            return readings, Readings.empty()
        keys = {key for key, late in zip(readings.keys, behind, strict=True) if late}
        stored = self._stored(hour, keys)
        fresh = readings.take(disordered)
        marks = _marks(stored)
        repeated = np.array([mark in marks for mark in _marks(fresh)], np.bool_)
        counts["duplicates"] += int(repeated.sum())
        new = fresh.take(~repeated)
        onward = new.ts > frontier[new.series]
        again = np.zeros(len(new.keys), np.bool_)
        again[new.series[~onward]] = True
        restarting = again[new.series]
        restarted = {new.keys[code] for code in np.unique(new.series[restarting])}
        back = np.array([key in restarted for key in stored.keys], np.bool_)[stored.series]
        return (
            concat([readings.take(~disordered), new.take(~restarting)]),
            concat([stored.take(back), new.take(restarting)]),
        )

    def _restart(
        self, hour: int, readings: Readings, settings: LineSettings
    ) -> tuple[HourRows, dict[SeriesKey, Base | None]]:
        keys = {readings.keys[code] for code in np.unique(readings.series)}
        bases = self._ledger.states(self._line, keys, before=hour)
        rows = compute(readings, {key: base.state.blob for key, base in bases.items()}, settings)
        return rows, {key: _base(bases.get(key)) for key in keys}

    def _stored(self, hour: int, keys: set[SeriesKey]) -> Readings:
        rows = self._current(schema.READINGS, hour)
        return Readings.from_table(of_series(schema.READINGS, rows, keys))

    def _current(self, table: schema.Table, hour: int) -> pa.Table:
        files = self._files(table, hour)
        return self._store.read(table, [file.path for file in files])

    def _files(self, table: schema.Table, hour: int) -> list[CurrentFile]:
        if hour not in self._listed:
            self._listed[hour] = self._ledger.hour_files(self._line, hour)
        return self._listed[hour].get(table.name, [])

    def _summarise(self, tables: dict[str, pa.Table], activity: pa.Table) -> None:
        """Adds the small tables whose file is replaced at every change."""
        tables[schema.ACTIVITY.name] = activity
        tables[schema.LINE_SUMMARY.name] = summarise(self._line, activity)
        tables[schema.DATA_QUALITY.name] = data_quality(self._line, activity)

    def _append(
        self, hour: int, table: schema.Table, rows: pa.Table, marks: Provenance
    ) -> FileChange:
        """New rows in a file of their own, merged with its like where there are many."""
        new = with_provenance(table, rows, marks.run_id, marks.config_version)
        merged, level = _to_merge(self._files(table, hour))
        if not merged:
            return FileChange(
                table.name,
                # written and read again at half the cost, for a third more bytes
                self._store.write(self._line, table, hour, new, lasting=False),
                operation=_operation(table, "upsert"),
            )
        old = self._store.read(table, [file.path for file in merged])
        return FileChange(
            table.name,
            self._store.write(self._line, table, hour, pa.concat_tables([old, new])),
            level=level,
            dropped=tuple(file.id for file in merged),
            operation=_operation(table, "upsert"),
        )

    def _replace(
        self,
        hour: int,
        table: schema.Table,
        rows: pa.Table | None,
        marks: Provenance,
        *,
        kept: Iterable[SeriesKey] | None,
        upsert: bool = False,
    ) -> FileChange | None:
        """New rows instead of all that stand, or of those of some series (`kept`: the rest)."""
        files = self._files(table, hour)
        parts = []
        if kept is not None:
            parts.append(
                without_series(table, self._store.read(table, [f.path for f in files]), kept)
            )
        if rows is not None and len(rows):
            parts.append(with_provenance(table, rows, marks.run_id, marks.config_version))
        written = sum(len(part) for part in parts)
        if not written and not files:
            return None
        return FileChange(
            table.name,
            self._store.write(self._line, table, hour, pa.concat_tables(parts))
            if written
            else None,
            level=_FAN_IN,
            dropped=tuple(file.id for file in files),
            operation=_operation(table, "upsert" if upsert or not files else "rewrite"),
        )


def _operation(table: schema.Table, operation: Operation) -> Operation | None:
    return None if table.measurement is None else operation


def _to_merge(files: list[CurrentFile]) -> tuple[list[CurrentFile], int]:
    """The newest files that are merged with the next one, and the level of the result."""
    merged: list[CurrentFile] = []
    level = 0
    while True:
        rest = files[: len(files) - len(merged)]
        run = []
        for file in reversed(rest):
            if file.level != level:
                break
            run.append(file)
        if len(run) < _FAN_IN - 1:
            return merged, level
        merged = [*reversed(run), *merged]
        level += 1


def _marks(readings: Readings) -> list[tuple[SeriesKey, str, int, int]]:
    """What makes a reading the same as another."""
    return [
        (readings.keys[series], readings.topics[topic], ts, payload)
        for series, topic, ts, payload in zip(
            readings.series.tolist(),
            readings.topic.tolist(),
            readings.ts.tolist(),
            readings.payload_hash.tolist(),
            strict=True,
        )
    ]


def _base(stored: StoredState | None) -> Base | None:
    return None if stored is None else Base(stored.hour, stored.state.hash)


def _joined(first: dict[str, pa.Table], second: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {
        name: pa.concat_tables([rows for rows in (first.get(name), second.get(name)) if rows])
        for name in first | second
    }


def _lengths(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    return {name: len(rows) for name, rows in tables.items() if name != schema.ACTIVITY.name}


def _anomalies(activity: pa.Table) -> int:
    return int(activity.column("anomalies").to_numpy().sum())


def _says_quality(parts: list[pa.Table]) -> bool:
    """True where a batch has set something aside or found something late."""
    return any(
        part.column(name).to_numpy().any() for part in parts for name in ("quarantined", "late")
    )


def _set_aside(entries: tuple[Quarantined, ...]) -> dict[str, pa.Table]:
    """Rows of `quarantine` and of `gaps`, where there are any."""
    gaps = tuple(entry for entry in entries if entry.reason == schema.GAP)
    messages = tuple(entry for entry in entries if entry.reason != schema.GAP)
    return ({schema.GAPS.name: gap_rows(gaps)} if gaps else {}) | (
        {schema.QUARANTINE.name: quarantine_rows(messages)} if messages else {}
    )


def _quarantine_activity(entries: tuple[Quarantined, ...]) -> list[pa.Table]:
    by_reason: dict[str, list[Quarantined]] = {}
    for entry in entries:
        by_reason.setdefault(entry.reason, []).append(entry)
    parts = []
    for reason, alike in by_reason.items():
        received = np.array([entry.received for entry in alike], np.int64)
        if reason == schema.GAP:
            parts.append(gap_activity([gap_in(entry.payload) for entry in alike], received))
        else:
            parts.append(quarantine_activity(reason, received))
    return parts
