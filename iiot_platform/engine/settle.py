"""Settling: a closed hour computed whole, and compared with what the live batches had made of it.

Equality is that of rows and states, bit for bit, whatever the files and whoever computed them.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.commit import Commit, DirtyMark, RerunKind
from iiot_platform.engine.hour import HourBuilder, WholeHour
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.partitions import code_versions, partition
from iiot_platform.engine.report import CHECKPOINT, Difference, Reason, SettleReport
from iiot_platform.engine.row_differences import differing_series
from iiot_platform.engine.swap import RIPPLE

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
    # rows that a batch has left meanwhile may have been read: their marks explain, and stay
    known = engine.ledger.dirty(line).get(hour, [])
    stood = _Stood(engine.ledger, builder, line, hour, tuple(mark for _, mark in known))
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
            try:
                old = self.builder.standing(table, self.hour)
                different = differing_series(table, old, _fresh(table, computed))
                other_code = bool(different) and self._other_code(table)
            except StorageError:
                yield Difference(name, NO_SERIES, "defect")
                continue
            if different and name in _SUMMARIES:
                reasons = of_activity or {explain.of_line(other_code=other_code)}
                yield Difference(name, NO_SERIES, min(reasons, key=_BY_WEIGHT.index))
                continue
            for series in different:
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
            other_code = self._other_code(schema.READINGS)
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

    def _other_code(self, table: schema.Table) -> bool:
        """True where other code has computed some of the rows that stand.

        Raises:
            StorageError: a file is missing or damaged.
        """
        runs = self.builder.standing(table, self.hour, ("run_id",)).column("run_id").unique()
        return bool(code_versions(self.ledger, runs.to_pylist()) - {code_version()})


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


def _fresh(table: schema.Table, computed: WholeHour) -> pa.Table:
    """The rows of a table that were computed, provenance left out."""
    rows = computed.rows.tables.get(table.name)
    if rows is None:
        return table.content.empty_table()
    return rows.select(table.content.names).cast(table.content)
