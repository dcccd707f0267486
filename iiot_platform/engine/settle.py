"""Settling: a closed hour computed whole, and compared with what the live batches had made of it.

Equality is that of rows and states, bit for bit, whatever the files and whoever computed them.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.commit import Commit, DirtyMark, RerunKind
from iiot_platform.engine.hour import HourBuilder, WholeHour
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.partitions import code_versions, partition
from iiot_platform.engine.report import CHECKPOINT, Difference, Reason, SettleReport
from iiot_platform.engine.swap import RIPPLE
from iiot_platform.engine.table_store import with_provenance

if TYPE_CHECKING:
    from iiot_platform.engine.engine import Engine

OTHER_SETTINGS: Final = "closed_under_other_settings"
"""Reason of a dirty mark: rows for a closed hour while the current settings are others."""
_SUMMARIES: Final = (schema.LINE_SUMMARY.name, schema.DATA_QUALITY.name)
_BY_WEIGHT: Final[tuple[Reason, ...]] = (
    "defect",
    "code changed",
    "settings changed",
    "late",
    "disordered",
    "earlier hour changed",
)


def recompute(
    engine: "Engine",
    line: str,
    hour: int,
    *,
    run_id: str,
    settings: Literal["keep", "current"],
    kind: RerunKind,
) -> SettleReport:
    """Computes an hour whole from the log, compares it with what stands, and commits it.

    A table whose rows stand already keeps its file; several parts become one.

    Raises:
        CommitLostError: another run has changed the hour meanwhile; nothing was written.
        StorageError: the log, the tables or the ledger can not be read or written.
    """
    started = time.perf_counter()
    version = engine.ledger.partition_version(line, hour)  # before all else: see `versions`
    marks = engine.ledger.dirty(line).get(hour, [])
    chosen = engine.settings_for(line, hour, keep=settings == "keep")
    computed, span = engine.whole_hour(line, hour, version, chosen)
    builder = engine.builder(line)
    stood = _Stood(engine.ledger, builder, line, hour, tuple(mark for _, mark in marks))
    differences = tuple(stood.differences(computed)) if version else ()
    different = {found.table for found in differences}
    # rows that are computed under new settings name these, whether or not they have changed
    comparable = bool(version) and not stood.under_others(computed)
    change = builder.replacement(
        computed,
        run_id,
        settled=not engine.is_open(hour),
        equal=[name for name in schema.TABLES if name not in different] if comparable else (),
    )
    versions = engine.ledger.commit(
        Commit(
            line=line,
            kind=kind,
            lo=span[0],
            hi=span[1],
            run_id=run_id,
            code_version=code_version(),
            hours=(change,),
            cleared=tuple(mark_id for mark_id, _ in marks),
            seconds=time.perf_counter() - started,
        )
    )
    return SettleReport(
        engine.report(line, change, versions[hour], computed.rows.counts),
        differences,
        kept=not change.files,
    )


@dataclass(frozen=True)
class _Stood:
    """What stands of an hour, and what is known to have happened to it since."""

    ledger: Ledger
    builder: HourBuilder
    line: str
    hour: int
    marks: tuple[DirtyMark, ...]

    def under_others(self, computed: WholeHour) -> bool:
        """True where what stands was computed under other settings."""
        found = partition(self.ledger, self.line, self.hour)
        return found is not None and found.settings_version != computed.settings.version

    def differences(self, computed: WholeHour) -> Iterator[Difference]:
        """What the computation has found to be other than what stands."""
        explain = self._explanation(computed)
        of_activity: set[Reason] = set()
        # `activity` last but for the summaries, which follow from it
        names = [name for name in schema.TABLES if name not in _SUMMARIES]
        for name in [*names, *_SUMMARIES]:
            table = schema.TABLES[name]
            new = computed.rows.tables.get(name)
            fresh = (
                table.arrow.empty_table() if new is None else with_provenance(table, new, "", "")
            )
            try:
                old = self.builder.standing(table, self.hour)
            except StorageError:
                yield Difference(name, NO_SERIES, "defect")
                continue
            if canonical_hash(table, old) == canonical_hash(table, fresh):
                continue
            other_code = self._other_code(old)
            if name in _SUMMARIES:
                reasons = of_activity or {explain.of_line(other_code=other_code)}
                yield Difference(name, NO_SERIES, min(reasons, key=_BY_WEIGHT.index))
                continue
            before, after = _by_series(table, old), _by_series(table, fresh)
            for series in sorted({*before, *after}):
                if before.get(series) != after.get(series):
                    reason = explain.of_series(series, other_code=other_code)
                    if table is schema.ACTIVITY:
                        of_activity.add(reason)
                    yield Difference(name, series, reason)
        yield from self._states(computed, explain)

    def _states(self, computed: WholeHour, explain: "_Explanation") -> Iterator[Difference]:
        before = {key.text: state.hash for key, state in computed.before.items()}
        after = {key.text: state.hash for key, state in computed.rows.states.items()}
        changed = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
        if not changed:
            return
        try:
            other_code = self._other_code(self.builder.standing(schema.READINGS, self.hour))
        except StorageError:
            other_code = False
        for series in changed:
            yield Difference(CHECKPOINT, series, explain.of_series(series, other_code=other_code))

    def _explanation(self, computed: WholeHour) -> "_Explanation":
        late = computed.rows.tables.get(schema.LATE_ROWS.name)
        reasons: dict[str, set[str]] = {}
        for mark in self.marks:
            reasons.setdefault(mark.series, set()).add(mark.reason)
        return _Explanation(
            other_settings=self.under_others(computed),
            marks=reasons,
            late=frozenset() if late is None else frozenset(late.column("series").to_pylist()),
        )

    def _other_code(self, old: pa.Table) -> bool:
        """True where other code has computed some of these rows."""
        found = code_versions(self.ledger, old.column("run_id").unique().to_pylist())
        return bool(found - {code_version()})


@dataclass(frozen=True)
class _Explanation:
    """Why rows may differ.

    Attributes:
        other_settings: True where what stands was computed under other settings.
        marks: reasons of the dirty marks by series.
        late: series with rows that came late.
    """

    other_settings: bool
    marks: Mapping[str, set[str]]
    late: frozenset[str]

    def of_series(self, series: str, *, other_code: bool) -> Reason:
        """Why rows of a series differ."""
        # what was set aside belongs to no series; a key has slashes, a reason for it none
        marks = self.marks.get(series if "/" in series else NO_SERIES, set())
        if self.other_settings or OTHER_SETTINGS in marks:
            return "settings changed"
        if marks - {RIPPLE}:
            return "late" if series in self.late else "disordered"
        if marks:
            return "earlier hour changed"
        return "code changed" if other_code else "defect"

    def of_line(self, *, other_code: bool) -> Reason:
        """Why rows of the line differ."""
        return self.of_series(NO_SERIES, other_code=other_code)


_KEY_COLUMNS: Final = ("machine_name", "sensor_name", "state_name", "device_name", "name")


def _by_series(table: schema.Table, rows: pa.Table) -> dict[str, str]:
    """The hash of each series' rows, by series key; of the line's, where they have no series."""
    names = set(table.arrow.names)
    if "series" in names:
        columns = ["series"]
    elif table.kind is not None or table is schema.READINGS:
        columns = [
            name for name in ("kind", *_KEY_COLUMNS, "operation", "operation_type") if name in names
        ]
    else:
        return {NO_SERIES: canonical_hash(table, rows)}
    found: dict[str, str] = {}
    for parts in rows.group_by(columns, use_threads=False).aggregate([]).to_pylist():
        match = None
        for name, value in parts.items():
            here = pc.equal(rows.column(name), value)
            match = here if match is None else pc.and_(match, here)
        found[_series_text(table, parts)] = canonical_hash(table, rows.filter(match))
    return found


def _series_text(table: schema.Table, parts: Mapping[str, str]) -> str:
    if "series" in parts:
        return parts["series"]
    kind = parts.get("kind") or table.kind or ""
    machine, name = (parts[column] for column in _KEY_COLUMNS if column in parts)
    operation = parts.get("operation") or parts.get("operation_type") or ""
    return SeriesKey(kind, machine, name, operation).text
