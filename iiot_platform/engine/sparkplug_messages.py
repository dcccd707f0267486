"""The decoder of Sparkplug messages: metrics become signals and states, births and deaths `Online`.

A message may be read in part: what of it can not be is set aside with the message, per reason and
hour, so that other settings find it where it belongs.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.sparkplug import SparkplugSettings
from iiot_platform.core import quality, schema, sparkplug
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.clock import MS_PER_S, hour_of
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.sparkplug import Metric, Payload, Topic, topic_of
from iiot_platform.engine.lifecycle import Birth, Event, NodeLife
from iiot_platform.engine.messages import Columns, check_name, out_of_time
from iiot_platform.engine.payloads import MAX_FIELDS, gap_payload

ONLINE: Final = "Online"
_INT64: Final = 2**63
_GOOD: Final = range(192, 256)
_UNCERTAIN: Final = range(64, 128)
_STALE: Final = 500


class SetAside(NamedTuple):
    """A message, or a part of one, that became no reading; `claimed` is its event time (Unix ms).

    A gap stands here too, with a topic and a payload of its own.
    """

    reason: str
    detail: str
    claimed: int
    topic: str = ""
    payload: bytes = b""


class _Slot(NamedTuple):
    """What becomes of one metric."""

    series: int
    kind: str
    datatype: int


class _Aside:
    """Reasons of one message's metrics, by hour."""

    def __init__(self, received: int) -> None:
        self._received = received
        self._found: dict[tuple[str, int], SetAside] = {}

    def add(self, error: DecodeError, ts: int | None) -> None:
        claimed = self._received if ts is None or ts >= _INT64 else ts
        mark = error.reason, hour_of(claimed)
        self._found.setdefault(mark, SetAside(error.reason, error.detail, claimed))

    @property
    def entries(self) -> list[SetAside]:
        return list(self._found.values())


class SparkplugDecoder:
    """Decodes the messages of a line's edge nodes.

    Args:
        line: settings of the line.
        settings: its edge nodes.
        lives: births and deaths by node.
        columns: where readings are appended.
    """

    def __init__(
        self,
        line: LineSettings,
        settings: SparkplugSettings,
        lives: dict[str, NodeLife],
        columns: Columns,
    ) -> None:
        self._settings = settings
        self._lives = lives
        self._columns = columns
        self._behind_ms = int(line.max_lateness_s * MS_PER_S)
        self._ahead_ms = int(line.max_future_s * MS_PER_S)
        self._topics: dict[str, Topic] = {}
        self._slots: dict[tuple[str, str, int], _Slot | DecodeError | str] = {}
        self._by_alias: dict[tuple[str, int], dict[int, _Slot | DecodeError | str]] = {}
        self._sub = 0
        self._row = 0
        self._code = 0
        self.ignored: Counter[str] = Counter()
        self.hours: set[int] = set()
        """Hours that the messages may belong to, under whatever settings."""

    def add(
        self, row: int, offset: int, text: str, payload: bytes, received: int, code: int
    ) -> list[SetAside]:
        """Appends the readings of one message; returns what of it became none."""
        self._sub, self._row, self._code = 0, row, code
        aside = _Aside(received)
        try:
            content = sparkplug.decode(payload)
            self.hours |= hours_of(content, received)
            topic = self._topic(text)
        except DecodeError as error:
            aside.add(error, None)
            return aside.entries
        event = Event(offset, text, received, payload)
        if topic.type == "NDEATH":
            self._node_death(topic, event)
        elif topic.type == "DDEATH":
            self._online(topic, 0, content.timestamp, received)
        elif topic.type in {"NBIRTH", "DBIRTH"}:
            self._online(topic, 1, content.timestamp, received)
            self._metrics(topic, None, content, received, aside)
            return [*self._gap(topic, event), *aside.entries]
        else:
            self._data(topic, offset, content, received, aside)
        return aside.entries

    def _topic(self, text: str) -> Topic:
        topic = self._topics.get(text)
        if topic is None:
            found = topic_of(text)
            if found is None or not self._settings.takes(found):
                raise DecodeError("bad_topic", f"'{text:.200}' is of none of the line's edge nodes")
            check_name(text)
            if found.device == self._settings.node_device:
                raise DecodeError(
                    "bad_name",
                    f"a device called '{found.device}', as the edge node's own metrics are; give"
                    " these another name with 'node_device'",
                )
            topic = self._topics[text] = found
        return topic

    def _device(self, topic: Topic) -> str:
        return topic.device or self._settings.node_device

    def _data(
        self, topic: Topic, offset: int, content: Payload, received: int, aside: _Aside
    ) -> None:
        life = self._lives.get(topic.node)
        birth = None if life is None else life.birth(topic.device, offset)
        if birth is None:
            error = DecodeError("unknown_alias", f"no birth of '{topic.name}' came before")
            for metric in content.metrics[:MAX_FIELDS]:
                aside.add(error, _first(metric.timestamp, content.timestamp))
            if not content.metrics:
                aside.add(error, content.timestamp)
            return
        self._metrics(topic, birth, content, received, aside)

    def _metrics(
        self, topic: Topic, birth: Birth | None, content: Payload, received: int, aside: _Aside
    ) -> None:
        if len(content.metrics) > MAX_FIELDS:
            many = f"{len(content.metrics)} metrics, more than {MAX_FIELDS}"
            aside.add(DecodeError("too_many_fields", many), content.timestamp)
            return
        by_alias = (
            {} if birth is None else self._by_alias.setdefault((topic.name, birth.offset), {})
        )
        for metric in content.metrics:
            try:
                alias = metric.alias
                slot = None if alias is None else by_alias.get(alias)
                if slot is None:
                    slot = self._slot(topic, birth, metric)
                    if alias is not None and birth is not None and alias in birth.by_alias:
                        by_alias[alias] = slot  # it follows from the birth alone
                self._take(slot, metric, content.timestamp, received)
            except DecodeError as error:
                aside.add(error, _first(metric.timestamp, content.timestamp))

    def _take(
        self, slot: _Slot | DecodeError | str, metric: Metric, stamp: int | None, received: int
    ) -> None:
        if isinstance(slot, _Slot):
            self._metric(slot, metric, stamp, received)
        elif isinstance(slot, str):
            self.ignored[slot] += 1
        else:
            raise DecodeError(slot.reason, slot.detail)

    def _slot(self, topic: Topic, birth: Birth | None, metric: Metric) -> _Slot | DecodeError | str:
        """What becomes of a metric: a slot, why it can not be read, or why it is left out."""
        name, datatype = metric.name, metric.datatype
        if birth is not None:
            known = None if metric.alias is None else birth.by_alias.get(metric.alias)
            if known is not None:
                name, datatype = known
            elif name is not None and name in birth.by_name:
                datatype = birth.by_name[name]
            else:
                called = f"alias {metric.alias}" if name is None else f"{name!r:.80}"
                return DecodeError(
                    "unknown_alias", f"{called} is not in the last birth of '{topic.name}'"
                )
        if not name:
            return DecodeError("missing_field", "a metric of a birth has no name")
        datatype = datatype or 0
        mark = topic.name, name, datatype
        found = self._slots.get(mark)
        if found is None:
            found = self._slots[mark] = self._new_slot(topic, name, datatype)
        return found

    def _new_slot(  # noqa: PLR0911 - one for each thing that can become of it
        self, topic: Topic, name: str, datatype: int
    ) -> _Slot | DecodeError | str:
        if name.startswith(sparkplug.NO_DATA):
            return "control"
        if not sparkplug.DataType.UNKNOWN < datatype <= sparkplug.LAST_SCALAR:
            return DecodeError(
                "unsupported_type", f"{name!r:.80} has data type {datatype}, which is no scalar"
            )
        machine, key = self._settings.machine(topic), f"{self._device(topic)}/{name}"
        kind = self._settings.reading(f"{machine}/{key}", datatype)
        if kind == "ignore":
            return "rule"
        if datatype in sparkplug.TEXTS:
            return "text"
        if kind == "state" and datatype in sparkplug.FLOATS:
            return DecodeError("wrong_type", f"{name!r:.80} is no whole number, so no state")
        try:
            check_name(key)
        except DecodeError as error:
            return error
        return self._new(SeriesKey(kind, machine, key), datatype)

    def _new(self, key: SeriesKey, datatype: int) -> _Slot:
        keys = self._columns.keys
        return _Slot(keys.setdefault(key, len(keys)), key.kind, datatype)

    def _metric(self, slot: _Slot, metric: Metric, stamp: int | None, received: int) -> None:
        code = self._code
        if metric.quality is not None:
            code = max(code, _status_code(metric.quality))
        ts = metric.timestamp if metric.timestamp is not None else stamp
        if ts is None:
            ts, code = received, code | quality.GOOD_RECEIVE_TIME
        elif not -self._behind_ms <= ts - received <= self._ahead_ms:
            raise out_of_time(ts - received)
        if metric.null or (metric.value is None and not metric.other):
            if slot.kind == schema.STATE or quality.is_good(code):
                self.ignored["null"] += 1
                return
            value: float | None = math.nan
        else:
            value = sparkplug.number(slot.datatype, metric.value)
        if value is None:
            sent = "no scalar" if metric.other else type(metric.value).__name__
            raise DecodeError("wrong_type", f"data type {slot.datatype} and a value that is {sent}")
        if slot.kind == schema.STATE:
            self._state(slot.series, int(value), ts, code)
            return
        if not math.isfinite(value) and not metric.null:
            raise DecodeError("not_finite", f"{value} is no finite number")
        self._append(slot.series, ts, code)
        self._columns.values.append(float(value))

    def _state(self, series: int, value: int, ts: int, code: int) -> None:
        if not -_INT64 < value < _INT64:
            raise DecodeError("not_finite", f"state {value} does not fit 64 bits")
        self._columns.state[len(self._columns.ts)] = value
        self._append(series, ts, code)

    def _append(self, series: int, ts: int, code: int) -> None:
        columns, place = self._columns, len(self._columns.ts)
        columns.row.append(self._row)
        columns.series.append(series)
        columns.ts.append(ts)
        if self._sub:
            columns.sub[place] = self._sub
        if code != self._code:
            columns.quality[place] = code
        self._sub += 1

    def _online(self, topic: Topic, value: int, ts: int | None, received: int) -> None:
        """A reading of the state `Online`; a time that can not be gives way to that of receipt."""
        code = self._code
        if ts is None or not -self._behind_ms <= ts - received <= self._ahead_ms:
            ts, code = received, code | quality.GOOD_RECEIVE_TIME
        key = SeriesKey(
            schema.STATE, self._settings.machine(topic), f"{self._device(topic)}.{ONLINE}"
        )
        self._state(self._new(key, sparkplug.DataType.BOOLEAN).series, value, ts, code)

    def _node_death(self, topic: Topic, event: Event) -> None:
        """The node and its devices are away from now on.

        The broker sends the message; a time in it is when the node connected.
        """
        life = self._lives.get(topic.node)
        if life is not None and not life.counts(event):
            self.ignored["stale_death"] += 1
            return
        devices: Iterable[str] = () if life is None else life.alive(event.offset)
        for device in ("", *devices):
            self._online(topic._replace(device=device), 0, None, event.received)

    def _gap(self, topic: Topic, birth: Event) -> list[SetAside]:
        """The time that a node or device was dead, by the clock of the buffer."""
        life = self._lives.get(topic.node)
        death = None if life is None else life.dead_since(birth)
        if death is None:
            return []
        what = "device" if topic.device else "edge node"
        reason = f"Sparkplug {what} '{topic.name}' was dead ({death.source.type})"
        payload = gap_payload(death.received, birth.received, reason)
        name = f"{GAP_TOPIC}{topic.name}"
        return [SetAside(schema.GAP, "", birth.received, name, payload)]


def hours_of(content: Payload, received: int) -> set[int]:
    """The hours that a message may belong to: other settings may read what these leave out."""
    stamps = {metric.timestamp for metric in content.metrics[:MAX_FIELDS]}
    stamps |= {content.timestamp, received}
    return {hour_of(ts) for ts in stamps if ts is not None and ts < _INT64}


def _first(*times: int | None) -> int | None:
    return next((time for time in times if time is not None), None)


def _status_code(sent: int) -> int:
    """The StatusCode of a property `Quality`: 192 Good, 500 stale, 0 Bad, as OPC has them."""
    if sent in _GOOD:
        return quality.GOOD
    return quality.UNCERTAIN if sent in _UNCERTAIN or sent == _STALE else quality.BAD
