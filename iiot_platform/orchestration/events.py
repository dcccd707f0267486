"""What Dagster is told of a commit: one event per table and hour, after it is in the ledger."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetMaterialization,
    HourlyPartitionsDefinition,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)
from dagster._core.definitions.metadata import TableMetadataSet

from iiot_platform.core.clock import partition_key
from iiot_platform.core.schema import READINGS
from iiot_platform.engine.report import BatchReport, HourReport, SettleReport
from iiot_platform.orchestration.catalog import tested
from iiot_platform.orchestration.checks import Completeness, Lag
from iiot_platform.orchestration.links import NO_LINKS, Links
from iiot_platform.orchestration.naming import ASSET_TABLES, LineNames
from iiot_platform.orchestration.partitions import is_partition

if TYPE_CHECKING:  # the client behind it takes long to import, and is not always needed
    from iiot_platform.sinks.drain import DrainReport

_TESTED: Final = tested(ASSET_TABLES.values())
_OF_READINGS: Final = frozenset(
    {
        *("checkpoint_in", "checkpoint_out", "code_version", "segments", "segments_hash"),
        *("offsets", "duplicates", "conflicts"),
    }
)
"""What is one for all tables of an hour: told with its readings alone, since events are kept."""
_SHOWN_HOLES: Final = 5
_SHOWN_DIFFERENCES: Final = 50
_DIFFERENCES: Final = TableSchema([TableColumn(name) for name in ("table", "series", "reason")])

Event = AssetMaterialization | AssetCheckEvaluation


@dataclass(frozen=True)
class Reporter:
    """Turns reports of one line into events.

    Attributes:
        names: what the line is called.
        hours: the partitions that Dagster knows.
        links: where people find the rows.
    """

    names: LineNames
    hours: HourlyPartitionsDefinition
    links: Links = NO_LINKS

    def knows(self, hour: int) -> bool:
        """True where Dagster can show the hour."""
        return is_partition(self.hours, hour)

    def tables(
        self, report: HourReport, tables: Iterator[str] | list[str], metadata: Mapping[str, Any]
    ) -> Iterator[AssetMaterialization]:
        """An hour's tables, each with its figures.

        Raises:
            ValueError: Dagster does not know the hour and would accept it silently.
        """
        if not self.knows(report.hour):
            raise ValueError(f"hour {partition_key(report.hour)} is no partition")
        for table in tables:
            figures = {**_figures(report, table), **metadata}
            if table != READINGS.name:
                figures = {n: value for n, value in figures.items() if n not in _OF_READINGS}
            yield AssetMaterialization(
                self.names.table(table),
                partition=partition_key(report.hour),
                metadata={**self.links.hour(self.names, table, report.hour), **figures},
            )

    def completeness(self, found: Completeness, hour: int) -> AssetCheckEvaluation:
        """Whether the log has every offset of an hour."""
        holes = ", ".join(f"[{lo}, {hi})" for lo, hi in found.missing[:_SHOWN_HOLES])
        return _evaluation(
            self.names.completeness,
            partition_key(hour),
            AssetCheckSeverity.ERROR,
            passed=found.passed,
            metadata={
                "offsets": found.offsets,
                "missing": sum(hi - lo for lo, hi in found.missing),
                **({"holes": holes} if holes else {}),
            },
        )

    def live_equals_rerun(self, found: SettleReport) -> AssetCheckEvaluation:
        """Whether an hour computed whole is what stood; a defect alone is an error."""
        reasons = Counter(difference.reason for difference in found.differences)
        shown = sorted(found.differences, key=lambda difference: difference.reason != "defect")
        return _evaluation(
            self.names.live_equals_rerun,
            partition_key(found.report.hour),
            AssetCheckSeverity.ERROR if found.defects else AssetCheckSeverity.WARN,
            passed=found.equal,
            metadata={
                "version": found.report.version,
                "series_that_differ": len({difference.series for difference in shown}),
                **{f"differences: {reason}": count for reason, count in sorted(reasons.items())},
                **(
                    {
                        "differences": MetadataValue.table(
                            [TableRecord(d._asdict()) for d in shown[:_SHOWN_DIFFERENCES]],
                            _DIFFERENCES,
                        )
                    }
                    if shown
                    else {}
                ),
            },
        )

    def lag(self, found: Lag, hour: int) -> AssetCheckEvaluation:
        """Whether the line's messages are computed soon enough."""
        return _evaluation(
            self.names.lag_within_bound,
            partition_key(hour),
            AssetCheckSeverity.ERROR,
            passed=found.passed,
            metadata={
                "waiting": found.waiting,
                "waiting_s": found.waiting_s,
                "limit_s": found.limit_s,
            },
        )

    def delivery(self, sink: str, report: "DrainReport", *, asked: bool = False) -> Iterator[Event]:
        """What a drain did; the asset is materialized where the database has everything."""
        figures = {
            "points": report.points,
            "entries": report.entries,
            "rejected": report.rejected,
            "remaining": report.remaining,
            "seconds": report.seconds,
        }
        changed = report.entries or asked
        if changed and not report.remaining and report.error is None:
            yield AssetMaterialization(self.names.sink(sink), metadata=figures)
        if changed or report.rejected or report.error is not None:
            yield _evaluation(
                self.names.delivery(sink),
                None,
                AssetCheckSeverity.WARN,
                passed=report.error is None and not report.rejected,
                metadata={**figures, **({"error": report.error} if report.error else {})},
            )


def without_run(check: AssetCheckEvaluation) -> AssetCheckEvaluation:
    """The evaluation as it can be told outside of runs, its hour among the figures.

    Dagster stores one evaluation of a check for each run and partition, and refuses the second:
    outside of runs that would be one for ever.
    """
    return _evaluation(
        check.asset_check_key,
        None,
        check.severity,
        passed=check.passed,
        metadata={**check.metadata, "hour": str(check.partition)},
    )


def batch_tables(report: HourReport) -> list[str]:
    """The tables that a batch has changed; all of them where the hour is new.

    A table without rows is thus materialized once for each hour, not with every batch.
    """
    if report.version == 1:
        return list(ASSET_TABLES)
    return [name for name in ASSET_TABLES if report.rows.get(name, 0)]


def batch_metadata(report: BatchReport) -> dict[str, Any]:
    """The figures of a batch that stand on each of its tables."""
    return {
        "batch_rows_per_s": (report.hi - report.lo) / report.seconds if report.seconds else 0.0,
        "seconds": report.seconds,
        "lag_rows": report.lag_rows,
        "lag_s": report.lag_s,
        "late_rows": report.late_rows,
        "quarantined": sum(report.quarantined.values()),
    }


def _figures(report: HourReport, table: str) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "rows": report.rows.get(table, 0),
        **TableMetadataSet(partition_row_count=report.total.get(table, 0)),
        "state": report.state,
        "complete": report.complete,
        "version": report.version,
        "settings_version": report.settings_version,
        "outdated": report.outdated,
        "code_version": report.code_version,
        "checkpoint_in": report.checkpoint_in,
        "checkpoint_out": report.checkpoint_out,
        "duplicates": report.duplicates,
        "conflicts": report.conflicts,
    }
    if report.kept_below:
        figures["computed_from"] = f"readings: raw before offset {report.kept_below} is gone"
    if table in _TESTED:
        judged = sum(report.rows.get(name, 0) for name in _TESTED)
        figures["line_anomalies"] = report.anomalies
        figures["line_anomaly_ratio"] = report.anomalies / judged if judged else 0.0
    return figures


def _evaluation(
    key: AssetCheckKey,
    partition: str | None,
    severity: AssetCheckSeverity,
    *,
    passed: bool,
    metadata: Mapping[str, Any],
) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=passed,
        severity=severity,
        partition=partition,
        metadata=metadata,
    )
