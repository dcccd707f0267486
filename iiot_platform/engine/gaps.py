"""Gaps: what the buffer wrote into the log where messages are missing.

A gap is set aside like a message that can not be decoded, under a reason of its own, and stands
in a table of its own: it belongs to the hour in which it was written.
"""

import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.engine.decode import Quarantined
from iiot_platform.engine.payloads import gap_in


def gap_rows(entries: tuple[Quarantined, ...]) -> pa.Table:
    """As rows of the table `gaps`, without provenance."""
    found = [gap_in(entry.payload) for entry in entries]
    return pa.table(
        {
            "ts": _times([entry.received for entry in entries]),
            "offset": pa.array([entry.offset for entry in entries], pa.int64()),
            "source": pa.array([e.topic.removeprefix(GAP_TOPIC) for e in entries], pa.string()),
            "begin_ts": _times([gap.begin_ms for gap in found]),
            "end_ts": _times([gap.end_ms for gap in found]),
            "duration_s": pa.array(
                [(gap.end_ms - gap.begin_ms) / MS_PER_S for gap in found], pa.float64()
            ),
            "reason": pa.array([gap.reason for gap in found], pa.string()),
            "filled": pa.array([gap.filled for gap in found], pa.int64()),
            "complete": pa.array([gap.complete for gap in found], pa.bool_()),
        }
    )


def _times(ms: list[int]) -> pa.Array:
    return pa.array(ms, pa.int64()).cast(schema.TS)
