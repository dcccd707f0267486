"""Tells Dagster of hours that were computed without it, where there is an instance."""

from collections.abc import Iterable

from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.report import SettleReport
from iiot_platform.orchestration.access import opened
from iiot_platform.orchestration.events import Reporter, without_run
from iiot_platform.orchestration.inputs import inputs
from iiot_platform.orchestration.naming import ASSET_TABLES, line_names
from iiot_platform.orchestration.partitions import hourly


def announce(home: Home, engine: Engine, run_id: str, found: Iterable[SettleReport]) -> int:
    """Reports hours as run-less materializations; returns how many hours Dagster can show.

    Args:
        home: has the instance.
        engine: has computed the hours.
        run_id: stands in the metadata, since no run of Dagster did it.
        found: what became of each hour.
    """
    reporters = {names.line: Reporter(names, hourly()) for names in line_names(engine.lines)}
    told = 0
    with opened(home) as instance:
        for settled in found:
            report = settled.report
            reporter = reporters[report.line]
            if not reporter.knows(report.hour):
                continue
            ranges = engine.ledger.ranges(report.line, report.hour)
            metadata = {"computed_by": run_id, **inputs(engine.log, report.line, ranges)}
            for event in reporter.tables(report, list(ASSET_TABLES), metadata):
                instance.report_runless_asset_event(event)
            if not engine.is_open(report.hour):
                check = reporter.live_equals_rerun(settled)
                instance.report_runless_asset_event(without_run(check))
            told += 1
    return told
