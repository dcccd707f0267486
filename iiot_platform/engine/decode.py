"""From captured records to readings, or to the quarantine with a reason."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema, sparkplug
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.sparkplug import Topic, topic_of
from iiot_platform.engine import payloads
from iiot_platform.engine.alike_signals import read_signals
from iiot_platform.engine.lifecycle import Event, History, NodeLife, NoHistory, is_readable
from iiot_platform.engine.messages import US_PER_MS, Columns, MessageDecoder, Messages
from iiot_platform.engine.readings import NO_STATE, Readings, concat
from iiot_platform.engine.sparkplug_messages import SetAside, SparkplugDecoder, hours_of

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
    """What a range of the log says.

    Attributes:
        readings: what could be read.
        quarantine: messages that were set aside, and gaps. A Sparkplug message may be read in part.
        misnamed: messages with names that disagree with their topics.
        ignored: Sparkplug metrics and deaths that are meant to become nothing, by the cause.
        lifecycle: births and deaths of Sparkplug nodes, whatever the settings are.
        hours: hours that Sparkplug messages may belong to, whatever the settings are.
    """

    readings: Readings
    quarantine: tuple[Quarantined, ...]
    misnamed: int
    ignored: Counter[str] = field(default_factory=Counter)
    lifecycle: tuple[Event, ...] = ()
    hours: frozenset[int] = frozenset()

    @property
    def reasons(self) -> Counter[str]:
        """Messages set aside, by reason; gaps are no messages."""
        return Counter(e.reason for e in self.quarantine if e.reason != schema.GAP)


def decode(records: pa.Table, settings: LineSettings, history: History | None = None) -> Decoded:
    """Decodes records of the capture log (`capture_log.SEGMENT_SCHEMA`) under a line's settings.

    Pure: the same log and settings give the same readings, whenever and in whatever cuts.

    Args:
        records: some of the log, in order of offsets.
        settings: the line's.
        history: births and deaths of Sparkplug nodes that came before; None: there were none.
    """
    messages = Messages.of(records)
    decoder = MessageDecoder(settings)
    alike, readings = read_signals(messages, decoder)
    columns = Columns()
    quarantine: list[Quarantined] = []
    events, nodes = _lifecycle(messages)
    sparkplug_decoder = None
    hours: set[int] = set()
    if settings.sparkplug is not None and nodes:
        lives = _lives(messages, events, nodes, history or NoHistory())
        sparkplug_decoder = SparkplugDecoder(settings, settings.sparkplug, lives, columns)
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
        if sparkplug_decoder is not None and topic.startswith(sparkplug.PREFIX):
            offset = int(messages.offset[row])
            aside = sparkplug_decoder.add(row, offset, topic, payload, at, code)
            quarantine += [_set_aside(one, offset, topic, payload, at) for one in aside]
            continue
        try:
            decoder.add(columns, row, topic, payload, at, source, code)
        except DecodeError as error:
            if topic.startswith(sparkplug.PREFIX):
                hours |= _hours(payload, at)
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
    return Decoded(
        readings,
        tuple(quarantine),
        decoder.misnamed,
        Counter() if sparkplug_decoder is None else sparkplug_decoder.ignored,
        tuple(events),
        frozenset(hours if sparkplug_decoder is None else sparkplug_decoder.hours),
    )


def _hours(payload: bytes, received: int) -> set[int]:
    """The hours that a message of a Sparkplug node may belong to which is none of the line's."""
    try:
        return hours_of(sparkplug.decode(payload), received)
    except DecodeError:
        return set()


def _lifecycle(messages: Messages) -> tuple[list[Event], set[str]]:
    """Births and deaths among the messages, and the Sparkplug nodes that they all are of."""
    found: dict[int, Topic] = {}
    for code, text in enumerate(messages.topics):
        if text.startswith(sparkplug.PREFIX) and (topic := topic_of(text)) is not None:
            found[code] = topic
    spoken = [code for code, topic in found.items() if topic.type in sparkplug.LIFECYCLE]
    rows = np.flatnonzero(np.isin(messages.topic, spoken)) if spoken else np.zeros(0, np.int64)
    events = [
        Event(
            int(messages.offset[row]),
            messages.topics[messages.topic[row]],
            int(messages.received[row]),
            messages.payloads[row],
        )
        for row in rows.tolist()
    ]
    return [event for event in events if is_readable(event)], {t.node for t in found.values()}


def _lives(
    messages: Messages, events: Iterable[Event], nodes: set[str], history: History
) -> dict[str, NodeLife]:
    """The births and deaths of each node, those of the log before the messages included."""
    lo, hi = int(messages.offset.min()), int(messages.offset.max()) + 1
    every = {event.offset: event for event in (*history.events(nodes, lo, hi), *events)}
    of_node: dict[str, list[Event]] = {node: [] for node in nodes}
    for event in every.values():
        of_node[event.source.node].append(event)
    return {node: NodeLife(found) for node, found in of_node.items()}


def _set_aside(
    one: SetAside, offset: int, topic: str, payload: bytes, received: int
) -> Quarantined:
    return Quarantined(
        offset,
        one.topic or topic,
        one.payload or payload,
        received,
        one.claimed,
        one.reason,
        one.detail[:_DETAIL_LENGTH],
    )


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
    "not_sparkplug",
    "too_deep",
    "too_many_fields",
    "too_old",
    "unknown_alias",
    "unknown_operation",
    "unsupported_type",
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
