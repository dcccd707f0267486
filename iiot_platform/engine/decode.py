"""From captured records to readings, or to the quarantine with a reason."""

import contextlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.errors import DecodeError
from iiot_platform.engine import payloads
from iiot_platform.engine.alike_signals import read_signals
from iiot_platform.engine.messages import US_PER_MS, Columns, MessageDecoder, Messages
from iiot_platform.engine.readings import NO_STATE, Readings, concat

_DETAIL_LENGTH = 200


@dataclass(frozen=True)
class Quarantined:
    """One message that was set aside; times in Unix ms.

    `claimed` is the event time that it would have under settings that accept it: a rerun of that
    hour looks at it again.
    """

    offset: int
    topic: str
    payload: bytes
    received: int
    claimed: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Decoded:
    """What a range of the log says: readings, what was set aside, and names that disagree."""

    readings: Readings
    quarantine: tuple[Quarantined, ...]
    misnamed: int

    @property
    def reasons(self) -> Counter[str]:
        """Messages set aside, by reason; gaps are no messages."""
        return Counter(e.reason for e in self.quarantine if e.reason != schema.GAP)


def decode(records: pa.Table, settings: LineSettings) -> Decoded:
    """Decodes records of the capture log (`capture_log.SEGMENT_SCHEMA`) under a line's settings.

    Pure: the same records and settings give the same readings, whenever and in whatever cuts.
    """
    messages = Messages.of(records)
    decoder = MessageDecoder(settings)
    alike, readings = read_signals(messages, decoder)
    columns = Columns()
    quarantine: list[Quarantined] = []
    rows = np.flatnonzero(~alike)
    for row, topic_code, at, source, code in zip(
        rows.tolist(),
        messages.topic[rows].tolist(),
        messages.received[rows].tolist(),
        messages.source[rows].tolist(),
        messages.quality[rows].tolist(),
        strict=True,
    ):
        topic, payload = messages.topics[topic_code], messages.payloads[row]
        try:
            decoder.add(columns, row, topic, payload, at, source, code)
        except DecodeError as error:
            quarantine.append(
                Quarantined(
                    int(messages.offset[row]),
                    topic,
                    payload,
                    at,
                    _claimed(payload, at, source),
                    _reason(topic, payload, code, error),
                    error.detail[:_DETAIL_LENGTH],
                )
            )
    if not len(readings):
        readings = columns.readings(messages)
    elif columns.row:
        every = concat([readings, columns.readings(messages)])
        places = np.concatenate((np.flatnonzero(alike), columns.row))
        readings = every.take(np.argsort(places, kind="stable")).with_keys_in_order()
    return Decoded(readings, tuple(quarantine), decoder.misnamed)


def _reason(topic: str, payload: bytes, code: int, error: DecodeError) -> str:
    """Why a record is set aside; a value that the server itself calls bad may be none at all."""
    if topic.startswith(GAP_TOPIC):
        with contextlib.suppress(DecodeError):
            payloads.gap_in(payload)
            return schema.GAP
    return error.reason if quality.is_good(code) else "bad_quality"


def _claimed(payload: bytes, received: int, source_us: int) -> int:
    claimed = payloads.claimed_time(payload)
    if claimed is not None:
        return claimed
    return received if source_us == NO_STATE else source_us // US_PER_MS


QUARANTINE_REASONS = (
    "bad_name",
    "bad_quality",
    "bad_topic",
    "in_future",
    "missing_field",
    "no_values",
    "not_an_object",
    "not_finite",
    "not_json",
    "too_deep",
    "too_many_fields",
    "too_old",
    "unknown_operation",
    "wrong_type",
)
"""Every reason there is: a bounded set, since it becomes a tag."""


def quarantine_rows(entries: tuple[Quarantined, ...]) -> pa.Table:
    """As rows of the table `quarantine`, without provenance."""
    return pa.table(
        {
            "ts": pa.array([e.received for e in entries], pa.int64()).cast(schema.TS),
            "offset": pa.array([e.offset for e in entries], pa.int64()),
            "topic": pa.array([e.topic for e in entries], pa.string()),
            "payload": pa.array([e.payload for e in entries], pa.binary()),
            "reason": pa.array([e.reason for e in entries], pa.string()),
            "detail": pa.array([e.detail for e in entries], pa.string()),
        }
    )
