"""The plant: sources, lines, and the settings of their analysis, as one frozen model."""

import fnmatch
import re
import zoneinfo
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag, model_validator

from iiot_platform.config.alerts import AlertSettings, clash, unmatched
from iiot_platform.config.errors import PlantError, Problem, UnknownLineError
from iiot_platform.config.fit import (
    LEVELS,
    LineOutline,
    misfits,
    prefix_of,
    sparkplug_misfits,
)
from iiot_platform.config.level_name import CONTROL, LevelName
from iiot_platform.config.line_settings import (
    DAY_S,
    TOPIC_SHAPE,
    KindDefaults,
    LineSettings,
    SeriesException,
)
from iiot_platform.config.opcua_source import OpcUaSource, node_misfits
from iiot_platform.config.shifts import DEFAULT_SHIFTS, Shift, distinct
from iiot_platform.config.sparkplug import LineSparkplug
from iiot_platform.core.errors import nearest
from iiot_platform.core.parameters import (
    CycleParameters,
    DetectorParameters,
    Parameters,
    PositiveFloat,
    PositiveInt,
    StateParameters,
)

_Entry = TypeVar("_Entry")
_OWNER = re.compile(r"team:[A-Za-z0-9_.-]+|[^@\s:]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def _topic(topic: str) -> str:
    prefix = topic.removesuffix(LEVELS)
    if prefix == topic:
        raise ValueError(f"should end in '{LEVELS}', as '{TOPIC_SHAPE}' does")
    rest = prefix.replace("{line}", "")
    if CONTROL.search(topic) or set(rest) & set("+#{}") or topic.startswith("$"):
        raise ValueError(
            "should hold no '+', '#', control character or placeholder other than {line}, "
            "{machine} and {device}, nor start with '$'"
        )
    if prefix and not prefix.endswith("/"):
        raise ValueError("should have a '/' before {machine}, which is a whole level")
    return topic


def _timezone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("should be a time zone such as 'UTC' or 'Europe/Berlin'") from error
    return name


def _line_match(match: str) -> str:
    if "/" not in match:
        raise ValueError("should be '<machine>/<name>' or '<machine>/<name>/<operation>'")
    return match


def _plant_match(match: str) -> str:
    if match.count("/") < 2:  # noqa: PLR2004 - three parts
        raise ValueError(
            "should be '<line>/<machine>/<name>' or '<line>/<machine>/<name>/<operation>'"
        )
    return match


def _some(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not entries:
        raise ValueError("should have at least one entry")
    return entries


def _owner(owner: str) -> str:
    if not _OWNER.fullmatch(owner):
        raise ValueError("should be an e-mail address or a team such as 'team:maintenance'")
    return owner


Topic = Annotated[str, AfterValidator(_topic)]
Owner = Annotated[str, AfterValidator(_owner)]


class MqttTls(Parameters):
    """Encryption of an MQTT connection; without `ca_file` the system's authorities count."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True
    """False accepts any certificate: for a first test alone."""


class MqttSource(Parameters):
    """A broker."""

    name: LevelName = "mqtt"
    kind: Literal["mqtt"] = "mqtt"
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 1883
    client: Literal["mqtt5", "paho"] = "mqtt5"
    """Which library speaks MQTT: `mqtt5` needs about half of the CPU time, `paho` is older."""
    client_id: Annotated[str, Field(min_length=1)] = "iiot-buffer"
    """Names the session at the broker: two clients with one id throw each other out."""
    username: str | None = None
    password: SecretStr | None = None
    tls: MqttTls | None = None
    receive_maximum: Annotated[int, Field(ge=20, le=65_535)] = 4_000
    """Messages that may be unacknowledged: about 2 x rate x commit interval."""
    held_bytes: Annotated[int, Field(ge=1_000_000)] = 64_000_000
    """Payloads that may wait for the disk; beyond them nothing more is read from the network."""
    session_expiry_s: Annotated[int, Field(ge=0, le=2**32 - 1)] = 7 * 86_400
    keepalive_s: Annotated[int, Field(ge=1, le=65_535)] = 30
    qos0_queued: bool = False
    """The broker keeps messages of QoS 0 for a session that is away: no gap is written for them."""
    shared_group: LevelName | None = None
    """Buffers that name the same group share the messages; each has a client_id of its own."""


def _source_kind(given: Any) -> Any:
    return given.get("kind", "mqtt") if isinstance(given, dict) else getattr(given, "kind", None)


Source = Annotated[
    Annotated[MqttSource, Tag("mqtt")] | Annotated[OpcUaSource, Tag("opcua")],
    Discriminator(_source_kind),
]
"""Any source; `kind` tells them apart, and one that does not say is a broker."""


class BufferSettings(Parameters):
    """How the buffer commits and seals."""

    commit_interval_s: PositiveFloat = 0.2
    seal_interval_s: PositiveFloat = 1.0
    seal_rows: PositiveInt = 50_000
    compact_after_s: PositiveFloat = 7_200.0
    """How long after its end an hour's segments are made into one file."""
    compact_rows: PositiveInt = 200_000
    """Records of one compacted file at most."""
    unlink_grace_s: PositiveFloat = 3_600.0
    """How long a replaced file stays for its readers: longer than any run takes."""
    keep_raw_s: PositiveFloat | None = None
    """Age at which raw records that are consumed are deleted; null: never."""
    keep_raw_bytes: PositiveInt | None = None
    """Size of all segments above which the oldest that are consumed are deleted; null: never."""
    disk_warn_free: PositiveFloat = 2e9
    """Free space of the disk below which the buffer warns; below 1 a share, else bytes."""
    disk_stop_free: PositiveFloat = 256e6
    """Free space below which nothing more is taken or acknowledged, likewise."""
    disk_trim: bool = False
    """At that mark, delete the oldest raw records that are consumed, and at once."""


class BatchSettings(Parameters):
    """How batches are cut, settled and kept."""

    interval_s: PositiveFloat = 5.0
    """How often a line's batch begins; Dagster's daemon looks every 5 s."""
    live_interval_s: Annotated[float, Field(ge=0.2, le=5.0)] | None = None
    """How often it begins where that is to be sooner than the daemon looks; None: it is not."""
    row_cap: PositiveInt = 200_000
    """Rows that one batch takes at most."""
    max_lag_s: PositiveFloat | None = None
    """How long a sealed record may wait; None: 60 s, and no less than twelve intervals."""
    settle_grace_s: Annotated[float, Field(ge=0)] = 300.0
    """How long after its end an hour is computed whole, and rows of it count as late."""
    nightly_hours: Annotated[int, Field(ge=0)] = 24
    """Closed hours that are computed again every night, as a test; 0: none."""
    keep_versions: PositiveInt = 2
    """Versions of an hour that are kept, the current one included."""
    keep_live_runs_s: PositiveFloat = 6 * 3_600.0
    """How long Dagster keeps a live run; what it did stays in the ledger for ever."""
    keep_failed_runs_s: PositiveFloat = 14 * DAY_S
    """Likewise a run that failed, whatever its kind."""
    keep_runs_s: PositiveFloat = 30 * DAY_S
    """Likewise any other run: settling, nightly, rerun, backfill, housekeeping."""

    @property
    def lag_bound_s(self) -> float:
        """How long a sealed record may wait to be computed."""
        return max(60.0, 12 * self.interval_s) if self.max_lag_s is None else self.max_lag_s


class SeriesRule(Parameters):
    """Settings that differ for the series whose name matches; only what is written differs."""

    match: Annotated[str, AfterValidator(_line_match)]
    detector: DetectorParameters = DetectorParameters()
    cycle: CycleParameters = CycleParameters()
    state: StateParameters = StateParameters()

    def exception(self, match: str | None = None) -> SeriesException:
        """The rule as line settings carry it: checked values, in one spelling."""
        return SeriesException(
            match=self.match if match is None else match,
            detector=self.detector.model_dump(exclude_unset=True),
            cycle=self.cycle.model_dump(exclude_unset=True),
            state=self.state.model_dump(exclude_unset=True),
        )


class PlantRule(SeriesRule):
    """A rule for series of several lines: `<line>/<machine>/<name>[/<operation>]`."""

    match: Annotated[str, AfterValidator(_plant_match)]

    @property
    def line_pattern(self) -> str:
        """The part of the pattern that names lines."""
        return self.match.partition("/")[0]

    def covers(self, line: str) -> bool:
        """True where the pattern can match series of the line."""
        return fnmatch.fnmatchcase(line, self.line_pattern)

    def within_line(self) -> SeriesException:
        """The rule without its line part."""
        return self.exception(self.match.partition("/")[2])


class Line(Parameters):
    """A production line; in the file its name alone will do.

    Attributes:
        source: name of the source that brings it; default the first.
        topic: shape of its topics; `{machine}` is one level, `{device}` the rest.
        max_lateness_s: overrides how late a row may come.
        max_future_s: overrides how far ahead of its receive time a row may be.
        owners: whom to ask about it, as Dagster shows it; for people alone.
        defaults: settings per kind that differ from the plant's.
        series: exceptions from the defaults; they come after the plant's.
        sparkplug: its Sparkplug B edge nodes, which come beside its topics.
    """

    name: LevelName
    source: str | None = None
    topic: Topic = TOPIC_SHAPE
    max_lateness_s: PositiveFloat | None = None
    max_future_s: PositiveFloat | None = None
    owners: tuple[Owner, ...] = ()
    defaults: KindDefaults = KindDefaults()
    series: tuple[SeriesRule, ...] = ()
    sparkplug: LineSparkplug | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @property
    def topic_prefix(self) -> str:
        """What every topic of the line starts with."""
        return prefix_of(self.topic, self.name)


class Plant(Parameters):
    """Everything that a plant file says."""

    name: LevelName = "plant"
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """For people alone, in dashboards and shifts; all times that are stored are UTC."""
    shifts: Annotated[tuple[Shift, ...], AfterValidator(distinct)] = DEFAULT_SHIFTS
    """In the plant's time zone; for people alone."""
    history_start: date | None = None
    """First day (UTC) that Dagster shows; older hours are computed all the same, and shown from
    the next load of the code location on. None: the day of the oldest hour that was computed."""
    sources: Annotated[tuple[Source, ...], AfterValidator(_some)] = (MqttSource(),)
    lines: Annotated[tuple[Line, ...], AfterValidator(_some)]
    max_lateness_s: PositiveFloat = 7 * DAY_S
    max_future_s: PositiveFloat = 300.0
    defaults: KindDefaults = KindDefaults()
    series: tuple[PlantRule, ...] = ()
    buffer: BufferSettings = BufferSettings()
    batches: BatchSettings = BatchSettings()
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = list(
            misfits(
                dict(enumerate(source.name for source in self.sources)),
                {i: LineOutline(x.name, x.source, x.topic) for i, x in enumerate(self.lines)},
                dict(enumerate(rule.line_pattern for rule in self.series)),
            )
        )
        problems += node_misfits(
            [
                (i, source.name, [(j, node.line) for j, node in enumerate(source.nodes)])
                for i, source in enumerate(self.sources)
                if isinstance(source, OpcUaSource)
            ],
            {line.name: line.source for line in self.lines},
            self.sources[0].name,
        )
        problems += sparkplug_misfits(
            {
                i: (line.name, line.sparkplug, line.topic_prefix)
                for i, line in enumerate(self.lines)
            },
            {line.name: self.source_of(line.name).name for line in self.lines},
            {x.name: x.shared_group for x in self.sources if isinstance(x, MqttSource)},
        )
        problems += unmatched(self.alerts, self.line_names)
        written = "mqtt" in self.alerts.model_fields_set and self.alerts.mqtt.enabled
        if written and (problem := self.alert_topic_problem) is not None:
            problems.append(problem)
        if problems:
            raise PlantError(problems)
        return self

    @property
    def alert_broker(self) -> MqttSource | None:
        """The broker that alerts are published at; None where there is none of that name."""
        brokers = [source for source in self.sources if isinstance(source, MqttSource)]
        wanted = self.alerts.mqtt.source
        return next((b for b in brokers if wanted is None or b.name == wanted), None)

    @property
    def alert_topic_problem(self) -> Problem | None:
        """Why alerts can not be published over MQTT; None: they can."""
        broker, mqtt = self.alert_broker, self.alerts.mqtt
        if broker is None:
            names = {source.name for source in self.sources if isinstance(source, MqttSource)}
            what = "the plant has no broker" if mqtt.source is None else nearest(mqtt.source, names)
            return Problem(("alerts", "mqtt", "source"), f"no such broker; {what}")
        # two sources may be one broker
        heard = [line for line in self.lines if isinstance(self.source_of(line.name), MqttSource)]
        lines = {line.name: line.topic_prefix for line in heard}
        message = clash(mqtt.root, lines)
        return None if message is None else Problem(("alerts", "mqtt", "prefix"), message)

    @property
    def line_names(self) -> tuple[str, ...]:
        """The names of the lines, in the order of the file."""
        return tuple(line.name for line in self.lines)

    def line(self, name: str) -> Line:
        """The line called `name`.

        Raises:
            UnknownLineError: the plant has none of that name.
        """
        for line in self.lines:
            if line.name == name:
                return line
        raise UnknownLineError(name, nearest(name, self.line_names))

    def source_of(self, name: str) -> Source:
        """The source that brings the line called `name`.

        Raises:
            UnknownLineError: the plant has no line of that name.
        """
        wanted = self.line(name).source
        return next((s for s in self.sources if s.name == wanted), self.sources[0])

    def lines_of(self, source: str) -> tuple[Line, ...]:
        """The lines that a source brings."""
        return tuple(line for line in self.lines if self.source_of(line.name).name == source)

    def line_settings(self, name: str) -> LineSettings:
        """What the analysis of a line depends on: plant defaults, the line's, then exceptions.

        Raises:
            UnknownLineError: the plant has no line of that name.
        """
        line = self.line(name)
        lateness, future = line.max_lateness_s, line.max_future_s
        return LineSettings(
            line=line.name,
            topic=line.topic,
            max_lateness_s=self.max_lateness_s if lateness is None else lateness,
            max_future_s=self.max_future_s if future is None else future,
            settle_grace_s=self.batches.settle_grace_s,
            defaults=_overlaid(self.defaults, line.defaults),
            series=(
                *(rule.within_line() for rule in self.series if rule.covers(name)),
                *(rule.exception() for rule in line.series),
            ),
            sparkplug=None if line.sparkplug is None else line.sparkplug.settings,
        )


def _overlaid(base: KindDefaults, over: KindDefaults) -> KindDefaults:
    merged: dict[str, dict[str, object]] = base.model_dump(exclude_unset=True)
    for kind, fields in over.model_dump(exclude_unset=True).items():
        merged.setdefault(kind, {}).update(fields)
    return KindDefaults.model_validate(merged)
