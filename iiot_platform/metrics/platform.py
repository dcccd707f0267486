"""The metrics of the platform; exporter, dashboards, alert rules and docs/metrics.md use these."""

from typing import Final

from iiot_platform.metrics.metric import BYTES, SECONDS, UNIX, Metric, declared_in

LINE_CAPTURED: Final = Metric(
    "iiot_line_captured_offset",
    "gauge",
    "Records of a line that are durable in the log.",
    ("line",),
)
LINE_CONSUMED: Final = Metric(
    "iiot_line_consumed_offset",
    "gauge",
    "Records of a line that are in the tables: its watermark.",
    ("line",),
)
LAG_ROWS: Final = Metric(
    "iiot_line_lag_rows", "gauge", "Records captured and not yet in the tables.", ("line",)
)
LAG_SECONDS: Final = Metric(
    "iiot_line_lag_seconds",
    "gauge",
    "How long the oldest sealed record that is not yet in the tables has been waiting.",
    ("line",),
    SECONDS,
)
BATCHES: Final = Metric("iiot_batches_total", "counter", "Live batches that committed.", ("line",))
BATCH_SECONDS: Final = Metric(
    "iiot_batch_duration_seconds",
    "histogram",
    "Seconds of the batches that committed while the exporter ran; kind is live, rerun, settle or"
    " backfill.",
    ("line", "kind"),
    SECONDS,
)
LAST_BATCH: Final = Metric(
    "iiot_batch_last_commit_timestamp_seconds",
    "gauge",
    "When a line's newest live batch committed.",
    ("line",),
    UNIX,
)
TABLE_ROWS: Final = Metric(
    "iiot_table_rows", "gauge", "Rows that stand in a table.", ("line", "table")
)
ANOMALIES: Final = Metric(
    "iiot_anomalies_total", "counter", "Rows that live batches have flagged.", ("line",)
)
DUPLICATES: Final = Metric(
    "iiot_duplicates_total",
    "counter",
    "Readings left out because they had come before.",
    ("line",),
)
LATE_ROWS: Final = Metric(
    "iiot_late_rows_total",
    "counter",
    "Readings that came after their hour and were left to a rerun.",
    ("line",),
)
QUARANTINED: Final = Metric(
    "iiot_quarantined_total", "counter", "Messages set aside.", ("line", "reason")
)
DIRTY: Final = Metric(
    "iiot_dirty_partitions",
    "gauge",
    "Hours (partitions) of a line that must be computed again.",
    ("line",),
)
OUTDATED: Final = Metric(
    "iiot_outdated_partitions",
    "gauge",
    "Hours (partitions) computed under other settings than the current ones.",
    ("line",),
)
SINK_PENDING: Final = Metric(
    "iiot_sink_pending_entries",
    "gauge",
    "Entries of the outbox that a database has not been given yet.",
    ("line", "sink"),
)
SINK_REJECTED: Final = Metric(
    "iiot_sink_rejected_entries",
    "gauge",
    "Entries of the outbox that a database has refused and that were set aside.",
    ("line", "sink"),
)
SINK_FAILURES: Final = Metric(
    "iiot_sink_consecutive_failures",
    "gauge",
    "Writes to a database that failed one after another; 0 after one that succeeds.",
    ("line", "sink"),
)
CAPTURE_RUNNING: Final = Metric(
    "iiot_capture_running",
    "gauge",
    "1 while the buffer has written its status within the last ten seconds, else 0.",
)
POOL_UP: Final = Metric("iiot_pool_up", "gauge", "1 while the pool of workers answers, else 0.")
POOL_WORKERS: Final = Metric(
    "iiot_pool_workers", "gauge", "Processes of the pool that execute runs."
)
POOL_RUNNING: Final = Metric("iiot_pool_runs_running", "gauge", "Runs that workers execute now.")
POOL_WAITING: Final = Metric("iiot_pool_runs_waiting", "gauge", "Runs that wait for a worker.")
POOL_MEMORY: Final = Metric(
    "iiot_pool_memory_bytes",
    "gauge",
    "Resident memory of all workers after their last runs.",
    unit=BYTES,
)
RUNS: Final = Metric(
    "iiot_dagster_runs", "gauge", "Runs created within the last hour that still exist.", ("status",)
)
HEARTBEAT: Final = Metric(
    "iiot_dagster_daemon_heartbeat_timestamp_seconds",
    "gauge",
    "When a daemon of Dagster last said that it lives.",
    ("daemon",),
    UNIX,
)
FREE: Final = Metric(
    "iiot_filesystem_free_bytes",
    "gauge",
    "Free space where the tables and the ledger lie.",
    unit=BYTES,
)
SIZE: Final = Metric(
    "iiot_filesystem_size_bytes",
    "gauge",
    "Size of the file system where the tables and the ledger lie.",
    unit=BYTES,
)
LEDGER_UP: Final = Metric("iiot_ledger_up", "gauge", "1 while the ledger can be read, else 0.")
READ_SECONDS: Final = Metric(
    "iiot_exporter_read_duration_seconds",
    "gauge",
    "Seconds that the exporter's newest look at ledger, log and pool took.",
    unit=SECONDS,
)

METRICS: Final = declared_in(dict(globals()))
