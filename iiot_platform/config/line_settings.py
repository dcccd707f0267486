"""What the analysis of one line depends on, with the version that names it.

A partition is a function of the log and of these settings, so they hold nothing else: no
address, no password, no schedule. Two plant files that give the same analysis have one version.
"""

import fnmatch
import functools
import hashlib
import json
from typing import Annotated

from pydantic import Field

from iiot_platform.config.sparkplug import SparkplugSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.parameters import (
    CycleParameters,
    DetectorParameters,
    Parameters,
    PositiveFloat,
    StateParameters,
)

DAY_S = 86_400.0
TOPIC_SHAPE = "{line}/{machine}/{device}"
_LEVELS = "{machine}/{device}"


class KindDefaults(Parameters):
    """Settings per kind of device, before exceptions."""

    signal: DetectorParameters = DetectorParameters()
    vibration: DetectorParameters = DetectorParameters()
    valve: DetectorParameters = DetectorParameters()
    electrical: DetectorParameters = DetectorParameters()
    cycle: CycleParameters = CycleParameters()
    state: StateParameters = StateParameters()


class SeriesException(Parameters):
    """Settings that differ for the series whose name matches.

    Attributes:
        match: `<machine>/<name>` with `*` and `?`; a valve's operation may follow as a third part.
        detector: fields of `DetectorParameters` that differ.
        cycle: fields of `CycleParameters` that differ.
        state: fields of `StateParameters` that differ.
    """

    match: str
    detector: dict[str, object] = Field(default_factory=dict)
    cycle: dict[str, object] = Field(default_factory=dict)
    state: dict[str, object] = Field(default_factory=dict)

    def applies(self, key: SeriesKey) -> bool:
        """True where the pattern names the series."""
        name = f"{key.machine}/{key.name}"
        if fnmatch.fnmatchcase(name, self.match):
            return True
        return bool(key.operation) and fnmatch.fnmatchcase(f"{name}/{key.operation}", self.match)


class LineSettings(Parameters):
    """Everything that the tables of one line depend on, beside its log.

    Attributes:
        line: name of the line, which is also the stream of its capture log.
        topic: shape of the line's topics; `{machine}` is one level, `{device}` the rest.
        max_lateness_s: a row that is received later than this after its time is quarantined.
        max_future_s: a row whose time is further ahead of its receive time is quarantined.
        settle_grace_s: a row that is received this long after the end of its hour is late.
        defaults: settings per kind.
        series: exceptions; where several match, later ones override earlier ones.
        sparkplug: the line's Sparkplug edge nodes, beside its topics; None: it has none.
    """

    line: Annotated[str, Field(min_length=1)]
    topic: Annotated[str, Field(pattern=r"^[^+#]*\{machine\}/\{device\}$")] = TOPIC_SHAPE
    max_lateness_s: PositiveFloat = 7 * DAY_S
    max_future_s: PositiveFloat = 300.0
    settle_grace_s: Annotated[float, Field(ge=0)] = 300.0
    defaults: KindDefaults = KindDefaults()
    series: tuple[SeriesException, ...] = ()
    sparkplug: SparkplugSettings | None = None

    @functools.cached_property
    def version(self) -> str:
        """The name of these settings: a hash of their canonical JSON (12 hex digits)."""
        fields = self.model_dump(mode="json")
        if self.sparkplug is None:
            del fields["sparkplug"]  # lines that have none keep their versions
        body = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()

    @property
    def topic_prefix(self) -> str:
        """What every topic of the line starts with, for example `line1/`."""
        return self.topic.removesuffix(_LEVELS).replace("{line}", self.line)

    @property
    def topic_filter(self) -> str:
        """The MQTT topic filter that subscribes the line."""
        return f"{self.topic_prefix}#"

    @property
    def topic_filters(self) -> tuple[str, ...]:
        """Every MQTT topic filter of the line, those of its Sparkplug edge nodes included."""
        own = () if self.sparkplug is None else self.sparkplug.filters
        return (self.topic_filter, *own)

    def detector(self, key: SeriesKey) -> DetectorParameters:
        """The detector settings in force for a series."""
        base: DetectorParameters = getattr(
            self.defaults, schema.SIGNAL if key.kind == schema.STATE else key.kind
        )
        return DetectorParameters(**self._merged(base, key, "detector"))

    def cycle(self, key: SeriesKey) -> CycleParameters:
        """The cycle settings in force for an electrical device."""
        return CycleParameters(**self._merged(self.defaults.cycle, key, "cycle"))

    def state(self, key: SeriesKey) -> StateParameters:
        """The state settings in force for a state series."""
        return StateParameters(**self._merged(self.defaults.state, key, "state"))

    def _merged(self, base: Parameters, key: SeriesKey, part: str) -> dict[str, object]:
        merged = base.model_dump(exclude_unset=True)
        for exception in self.series:
            if exception.applies(key):
                merged.update(getattr(exception, part))
        return merged
