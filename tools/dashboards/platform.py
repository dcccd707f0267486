"""The dashboard of the platform itself: capture, computation, database, Dagster, disks."""

from collections.abc import Iterator, Mapping

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import text, timeseries
from grafana_foundation_sdk.models import dashboard as models

from iiot_platform.metrics import buffer
from iiot_platform.metrics import platform as computed
from tools.dashboards import boards, panels, promql
from tools.dashboards.panels import FULL, THIRD
from tools.dashboards.promql import LINE, quantile, rate, rise, series, total

_HEIGHT = 8


def platform() -> builders.Dashboard:
    """The dashboard of buffer and platform, from their own metrics."""
    made = boards.board(
        "platform",
        "Platform",
        "How buffer and platform do, from the metrics that they serve to Prometheus: in containers"
        " with the profile `monitoring`; without it there is nothing to see here.",
    )
    made = made.with_variable(
        builders.QueryVariable(LINE)
        .label("Line")
        .description("Lines of the plant.")
        .datasource(promql.DATASOURCE)
        .query(f"label_values({computed.LINE_CAPTURED.name}, {LINE})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(True)  # noqa: FBT003  # the SDK's signature
        .include_all(True)  # noqa: FBT003  # likewise
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    made = made.with_panel(
        text.Panel()
        .title("Where this comes from")
        .content(
            "Metrics of buffer and platform, which Prometheus asks for. Without one everything is "
            "empty: in containers start it with `deploy/up --profile monitoring`."
        )
        .height(3)
        .span(FULL)
    )
    for title, row in (
        ("Capture", _capture()),
        ("Computation", _computation()),
        ("Database, Dagster, machine", _surroundings()),
    ):
        made = made.with_row(boards.row(title))
        for panel in row:
            made = made.with_panel(panel.height(_HEIGHT).span(THIRD))
    return made


def _capture() -> Iterator[timeseries.Panel]:
    yield _plotted(
        "Messages captured",
        {"{{line}}": rate(buffer.CAPTURED, "line")},
        "cps",
        buffer.CAPTURED.description,
    )
    yield _plotted(
        "Commits and seals",
        {
            "commits": rate(buffer.COMMIT_SECONDS, suffix="_count"),
            "segments": rate(buffer.SEGMENTS),
        },
        "cps",
    )
    yield _plotted(
        "Commit and seal",
        {
            "commit p50": quantile(0.5, buffer.COMMIT_SECONDS),
            "commit p95": quantile(0.95, buffer.COMMIT_SECONDS),
            "seal p95": quantile(0.95, buffer.SEAL_SECONDS),
        },
        "s",
        "Seconds with the wait for the disk.",
    )
    yield _plotted(
        "Not yet safe, not yet sealed",
        {
            "unacknowledged {{source}}": total(buffer.UNACKNOWLEDGED, "source"),
            "hot rows": total(buffer.HOT_ROWS),
        },
    )
    yield _plotted(
        "Sources",
        {
            "{{source}} connected": total(buffer.CONNECTED, "source"),
            "{{source}} reconnects": rise(buffer.RECONNECTS, "source"),
            "{{source}} gaps": rise(buffer.GAPS, "source"),
        },
    )
    yield _plotted(
        "Dropped, and what could not be stored",
        {
            "broker of {{source}}": rise(buffer.BROKER_DROPS, "source"),
            "QoS 0 {{source}}": rise(buffer.DROPPED, "source"),
            "redeliveries {{line}}": rise(buffer.REDELIVERIES, "line"),
            "failed {{operation}}": rise(buffer.STORAGE_ERRORS, "operation"),
        },
        description="Redeliveries were in the log already; all others are lost or held up.",
    )


def _computation() -> Iterator[timeseries.Panel]:
    yield _plotted(
        "Lag in rows",
        {"{{line}}": series(computed.LAG_ROWS)},
        description=computed.LAG_ROWS.description,
    )
    yield _plotted(
        "Lag", {"{{line}}": series(computed.LAG_SECONDS)}, "s", computed.LAG_SECONDS.description
    )
    yield _plotted(
        "Live batches",
        {
            "{{line}} p50": quantile(0.5, computed.BATCH_SECONDS, "line", kind="live"),
            "{{line}} p95": quantile(0.95, computed.BATCH_SECONDS, "line", kind="live"),
        },
        "s",
        "Seconds of a batch.",
    )
    yield _plotted("Batches", {"{{line}}": rate(computed.BATCHES, "line")}, "cps")
    yield _plotted("Rows that stand", {"{{table}}": total(computed.TABLE_ROWS, "table")})
    yield _plotted("Anomalies", {"{{line}}": rise(computed.ANOMALIES, "line")})
    yield _plotted(
        "Set aside",
        {"{{line}} {{reason}}": rise(computed.QUARANTINED, "line", "reason")},
        description=computed.QUARANTINED.description,
    )
    yield _plotted(
        "Late and repeated",
        {
            "{{line}} late": rise(computed.LATE_ROWS, "line"),
            "{{line}} duplicates": rise(computed.DUPLICATES, "line"),
        },
    )
    yield _plotted(
        "Hours to compute",
        {
            "{{line}} dirty": total(computed.DIRTY, "line"),
            "{{line}} outdated": total(computed.OUTDATED, "line"),
        },
    )


def _surroundings() -> Iterator[timeseries.Panel]:
    yield _plotted(
        "Database",
        {
            "{{line}} {{sink}} pending": total(computed.SINK_PENDING, "line", "sink"),
            "{{line}} {{sink}} refused": total(computed.SINK_REJECTED, "line", "sink"),
            "{{line}} {{sink}} failures": total(computed.SINK_FAILURES, "line", "sink"),
        },
        description="Entries of the outbox that a database has not been given, or has refused.",
    )
    yield _plotted(
        "Pool of workers",
        {
            "running": total(computed.POOL_RUNNING),
            "waiting": total(computed.POOL_WAITING),
            "workers": total(computed.POOL_WORKERS),
        },
    )
    yield _plotted(
        "Runs of the last hour",
        {"{{status}}": total(computed.RUNS, "status")},
        description=computed.RUNS.description,
    )
    yield _plotted(
        "Daemons",
        {"{{daemon}}": f"time() - {series(computed.HEARTBEAT)}"},
        "s",
        "Seconds since a daemon last said that it lives; every 30 s it should.",
    )
    yield (
        _plotted(
            "Free disk space",
            {
                "log": f"{series(buffer.FREE)} / {series(buffer.SIZE)}",
                "tables": f"{series(computed.FREE)} / {series(computed.SIZE)}",
            },
            "percentunit",
        )
        .min(0)
        .max(1)
    )
    yield _plotted(
        "Processes",
        {
            "{{job}} cores": 'sum by (job) (rate(process_cpu_seconds_total{job=~"iiot-.*"}'
            "[$__rate_interval]))",
            "look of the exporter (s)": series(computed.READ_SECONDS),
        },
    )


def _plotted(
    title: str, expressions: Mapping[str, str], unit: str = "short", description: str = ""
) -> timeseries.Panel:
    """Expressions over time, by the legends of their lines."""
    panel = panels.lines(title, description).datasource(promql.DATASOURCE).unit(unit).min(0)
    for number, (legend, expression) in enumerate(expressions.items()):
        panel = panel.with_target(promql.target(expression, legend, chr(ord("A") + number)))
    return panel
