"""Reads a report from the tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from iiot_platform.client import Client
from iiot_platform.core import schema
from iiot_platform.core.clock import (
    MS_PER_S,
    from_ms,
    hour_from_key,
    hour_of,
    hour_start_ms,
    now_ms,
)
from iiot_platform.engine.coverage import share_outside
from iiot_platform.engine.status import PlantStatus
from iiot_platform.report import sections
from iiot_platform.report.content import (
    Event,
    Group,
    Lineage,
    LineReport,
    Overview,
    Report,
    Section,
)
from iiot_platform.report.flagged import newest_flagged
from iiot_platform.report.sections import milliseconds

_SHOWN: Final = (
    schema.LINE_SUMMARY,
    schema.STATES,
    schema.SIGNAL_ANOMALIES,
    schema.VIBRATION_ANOMALIES,
    schema.VALVE_ANOMALIES,
    schema.ELECTRICAL_CYCLES,
    schema.ELECTRICAL_READINGS,
    schema.DATA_QUALITY,
)


@dataclass(frozen=True)
class _Window:
    """The period of the report."""

    start_ms: int
    end_ms: int

    @property
    def start(self) -> datetime:
        return from_ms(self.start_ms)

    @property
    def end(self) -> datetime:
        return from_ms(self.end_ms)


def read_report(
    client: Client,
    *,
    lines: Iterable[str] | None = None,
    last_s: float,
    status: PlantStatus | None = None,
) -> Report:
    """The newest rows of lines.

    Args:
        client: where the tables are read from.
        lines: their names; None: all that have anything computed.
        last_s: length of the period, which ends with the newest row of these lines; shorter where
            the first row is newer.
        status: what the platform says of itself; None: nothing is shown of it.

    Raises:
        UnknownNameError: there is no such line.
        StorageError: the tables can not be read.
    """
    names = client.lines() if lines is None else list(lines)
    there = {line: client.tables(line) for line in names}
    spans = [
        (int(milliseconds(found["first"]).min()), int(milliseconds(found["last"]).max()))
        for found in there.values()
        if len(found)
    ]
    made_ms = now_ms()
    end_ms = max((newest for _, newest in spans), default=made_ms) + 1
    start_ms = end_ms - round(last_s * MS_PER_S)
    oldest_ms = min((oldest for oldest, _ in spans), default=start_ms)
    window = _Window(max(start_ms, oldest_ms), end_ms)
    return Report(
        window.start_ms,
        window.end_ms,
        made_ms,
        tuple(_line(client, line, there[line], window) for line in names),
        status,
    )


def _line(client: Client, line: str, there: pd.DataFrame, window: _Window) -> LineReport:
    frames = {
        table.name: client.table(line, table.name, start=window.start, end=window.end)
        for table in _SHOWN
    }
    summary = frames[schema.LINE_SUMMARY.name]
    gaps = client.gaps(line, start=from_ms(hour_start_ms(hour_of(window.start_ms))))
    newest = there.loc[there["table"] == schema.READINGS.name, "last"]
    newest_ms = int(milliseconds(newest).max()) if len(newest) else None
    found = (
        Section(
            "Overview",
            (
                Group(
                    "",
                    (
                        *sections.summary_charts(summary),
                        *sections.coverage(gaps, window.start_ms, window.end_ms),
                    ),
                ),
            ),
        ),
        Section(
            "States",
            tuple(sections.states(frames[schema.STATES.name], window.start_ms, window.end_ms)),
        ),
        Section("Signals", tuple(sections.signals(frames[schema.SIGNAL_ANOMALIES.name]))),
        Section("Vibration", tuple(sections.vibration(frames[schema.VIBRATION_ANOMALIES.name]))),
        Section("Air valves", tuple(sections.valves(frames[schema.VALVE_ANOMALIES.name]))),
        Section(
            "Electrical",
            tuple(
                sections.electrical(
                    frames[schema.ELECTRICAL_CYCLES.name], frames[schema.ELECTRICAL_READINGS.name]
                )
            ),
        ),
        Section("Data quality", tuple(sections.quality(frames[schema.DATA_QUALITY.name]))),
    )
    return LineReport(
        line,
        _overview(summary, newest_ms, share_outside(gaps, window.start_ms, window.end_ms)),
        tuple(section for section in found if any(group.charts for group in section.groups)),
        tuple(_lineage(name, rows) for name, rows in frames.items() if len(rows)),
        newest_flagged(frames),
        tuple(_events(client.events(line, start=window.start, end=window.end), window)),
    )


def _events(rows: pd.DataFrame, window: _Window) -> Iterator[Event]:
    """What happened within the period, the newest first."""
    for at_ms, kind, text, key, until_ms, run in zip(
        milliseconds(rows["ts"]).tolist()[::-1],
        *(rows[name].tolist()[::-1] for name in ("kind", "text", "hour", "until_ms", "run_id")),
        strict=True,
    ):
        if until_ms >= window.start_ms and at_ms < window.end_ms:
            yield Event(at_ms, until_ms, kind, text, hour_from_key(key), run)


def _overview(summary: pd.DataFrame, newest_ms: int | None, covered_share: float) -> Overview:
    readings = int(summary["readings"].sum())
    known = summary["known_share"].to_numpy(np.float64)
    weights = summary["readings"].to_numpy(np.float64)
    return Overview(
        newest_ms=newest_ms,
        readings=readings,
        series=int(summary["devices"].max()) if len(summary) else 0,
        anomalies=int(summary["anomalies"].sum()),
        quarantined=int(summary["quarantined"].sum()),
        running_share=_mean(summary["running_share"], known),
        lateness_mean_s=_mean(summary["lateness_mean_s"], weights),
        lateness_max_s=float(summary["lateness_max_s"].max()) if readings else None,
        covered_share=covered_share,
    )


def _mean(values: pd.Series, weights: "np.ndarray[Any, Any]") -> float | None:
    """The weighted mean; None where there is no weight."""
    total = float(weights.sum())
    return float((values.to_numpy(np.float64) * weights).sum()) / total if total > 0 else None


def _lineage(table: str, rows: pd.DataFrame) -> Lineage:
    return Lineage(
        table=table,
        rows=len(rows),
        newest_ms=int(milliseconds(rows["ts"]).max()),
        runs=int(rows["run_id"].nunique()),
        newest_run=str(rows["run_id"].iloc[-1]),
        settings=tuple(sorted(map(str, rows["config_version"].unique()))),
    )
