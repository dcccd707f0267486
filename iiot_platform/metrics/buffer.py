"""The metrics of the buffer; exporter, dashboards, alert rules and docs/metrics.md use these."""

from typing import Final

from iiot_platform.metrics.metric import BYTES, SECONDS, UNIX, Metric, declared_in

RECEIVED: Final = Metric(
    "iiot_buffer_messages_received_total",
    "counter",
    "Messages taken from a source since the start, redeliveries and unmatched ones included.",
    ("source",),
)
CAPTURED: Final = Metric(
    "iiot_buffer_messages_captured_total",
    "counter",
    "Records that are durable in the log of a line; counts on over restarts.",
    ("source", "line"),
)
LAST_RECEIVED: Final = Metric(
    "iiot_buffer_last_received_timestamp_seconds",
    "gauge",
    "When the newest record of a line was received; absent before the first since the start.",
    ("line",),
    UNIX,
)
REDELIVERIES: Final = Metric(
    "iiot_buffer_redeliveries_dropped_total",
    "counter",
    "Messages that the broker sent again and that were in the log already.",
    ("line",),
)
GAPS: Final = Metric(
    "iiot_buffer_gaps_total",
    "counter",
    "Gaps written into the log: times in which an OPC UA source could not tell its values.",
    ("source",),
)
DROPPED: Final = Metric(
    "iiot_buffer_messages_dropped_total",
    "counter",
    "QoS 0 messages that had to be dropped because the disk could not take them.",
    ("source",),
)
UNMATCHED: Final = Metric(
    "iiot_buffer_messages_unmatched_total",
    "counter",
    "Messages that belong to no line of the plant file.",
    ("source",),
)
NOT_GOOD: Final = Metric(
    "iiot_buffer_values_not_good_total",
    "counter",
    "OPC UA values captured whose status is not Good.",
    ("source",),
)
REFUSED_NODES: Final = Metric(
    "iiot_buffer_refused_nodes",
    "gauge",
    "OPC UA nodes that the server does not let be captured.",
    ("source",),
)
CONNECTED: Final = Metric(
    "iiot_buffer_source_connected",
    "gauge",
    "1 while a source is connected and subscribed, else 0.",
    ("source",),
)
RECONNECTS: Final = Metric(
    "iiot_buffer_source_reconnects_total",
    "counter",
    "Connections to a source after the first.",
    ("source",),
)
SESSIONS_LOST: Final = Metric(
    "iiot_buffer_sessions_lost_total",
    "counter",
    "Times that a broker had lost the session with the messages that waited in it.",
    ("source",),
)
UNACKNOWLEDGED: Final = Metric(
    "iiot_buffer_unacknowledged_messages",
    "gauge",
    "Messages of a source that are received and not yet durable and acknowledged.",
    ("source",),
)
BROKER_DROPS: Final = Metric(
    "iiot_buffer_broker_messages_dropped_total",
    "counter",
    "Messages that the broker itself has dropped, as it says under $SYS; absent where it does not.",
    ("source",),
)
COMMIT_SECONDS: Final = Metric(
    "iiot_buffer_commit_duration_seconds",
    "histogram",
    "Seconds that a commit took, with its wait for the disk.",
    unit=SECONDS,
)
SEAL_SECONDS: Final = Metric(
    "iiot_buffer_seal_duration_seconds",
    "histogram",
    "Seconds that it took to write hot rows as segment files.",
    unit=SECONDS,
)
SEGMENTS: Final = Metric(
    "iiot_buffer_segments_total", "counter", "Segments that were sealed and listed."
)
HOT_ROWS: Final = Metric(
    "iiot_buffer_hot_rows", "gauge", "Records that are durable and not yet sealed."
)
STORAGE_ERRORS: Final = Metric(
    "iiot_buffer_storage_errors_total",
    "counter",
    "Attempts to store that failed; nothing is acknowledged meanwhile.",
    ("operation",),
)
STORAGE_FAILING: Final = Metric(
    "iiot_buffer_storage_failing", "gauge", "1 while the log can not be written, else 0."
)
MISSING_FILES: Final = Metric(
    "iiot_buffer_missing_files",
    "gauge",
    "Segments that the manifest lists and that were not there at the start.",
)
FREE: Final = Metric(
    "iiot_buffer_filesystem_free_bytes",
    "gauge",
    "Free space where the log lies.",
    unit=BYTES,
)
SIZE: Final = Metric(
    "iiot_buffer_filesystem_size_bytes",
    "gauge",
    "Size of the file system where the log lies.",
    unit=BYTES,
)

METRICS: Final = declared_in(dict(globals()))
