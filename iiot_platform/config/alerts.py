"""Which alerts there are, when they fire, and who is told."""

import fnmatch
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from iiot_platform.config.errors import Problem
from iiot_platform.config.level_name import CONTROL
from iiot_platform.config.maintenance import Maintenance
from iiot_platform.core.errors import nearest
from iiot_platform.core.parameters import Parameters, PositiveFloat

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Severity = Literal["info", "warning", "critical"]


class AlertRule(Parameters):
    """When one alert fires and when it ends.

    Attributes:
        enabled: False: it never fires.
        threshold: it begins where the value exceeds this.
        clear: it ends where the value is below this; between the two it stays as it is.
        for_s: how long it must last before it fires.
        clear_for_s: how long the value must stay below `clear` before it ends.
        window_s: how far back the rule looks: what it sums over, how long a value counts without a
            newer one, after how much silence a device is no longer expected, or for how long no
            message must have been dropped.
        severity: for whoever is told.
    """

    enabled: bool = True
    threshold: NotNegative
    clear: NotNegative
    for_s: NotNegative
    clear_for_s: NotNegative
    window_s: PositiveFloat
    severity: Severity


DEFAULT_RULES: Final[dict[str, AlertRule]] = {
    "anomaly_ratio": AlertRule(
        threshold=0.2, clear=0.1, for_s=20, clear_for_s=60, window_s=600, severity="warning"
    ),
    "level_shift": AlertRule(
        threshold=0.5, clear=0.5, for_s=0, clear_for_s=60, window_s=3_600, severity="warning"
    ),
    "silent_device": AlertRule(
        threshold=600, clear=60, for_s=0, clear_for_s=30, window_s=86_400, severity="warning"
    ),
    "late_data": AlertRule(
        threshold=60, clear=30, for_s=60, clear_for_s=120, window_s=300, severity="info"
    ),
    "quarantine_rate": AlertRule(
        threshold=6, clear=1, for_s=60, clear_for_s=120, window_s=300, severity="warning"
    ),
    "capture_gap": AlertRule(
        threshold=0.5, clear=0.5, for_s=0, clear_for_s=0, window_s=600, severity="critical"
    ),
    "line_lag": AlertRule(
        threshold=60, clear=20, for_s=30, clear_for_s=30, window_s=600, severity="critical"
    ),
    "capture_down": AlertRule(
        threshold=0.5, clear=0.5, for_s=30, clear_for_s=10, window_s=600, severity="critical"
    ),
    "messages_dropped": AlertRule(
        threshold=0.5, clear=0.5, for_s=0, clear_for_s=0, window_s=600, severity="critical"
    ),
    "disk_low": AlertRule(
        threshold=0.5, clear=0.5, for_s=30, clear_for_s=60, window_s=600, severity="critical"
    ),
    "sink_backlog": AlertRule(
        threshold=500, clear=50, for_s=120, clear_for_s=60, window_s=600, severity="warning"
    ),
}
"""Every rule with its settings where the plant file says nothing."""


class RuleChange(Parameters):
    """What differs from a rule's settings; only what is written differs.

    Where `threshold` is given and `clear` is not, `clear` keeps its share of the threshold.
    """

    enabled: bool | None = None
    threshold: NotNegative | None = None
    clear: NotNegative | None = None
    for_s: NotNegative | None = None
    clear_for_s: NotNegative | None = None
    window_s: PositiveFloat | None = None
    severity: Severity | None = None

    def over(self, rule: AlertRule) -> AlertRule:
        """The rule with these changes."""
        values = self.model_dump(exclude_none=True)
        if "threshold" in values and "clear" not in values and rule.threshold:
            values["clear"] = values["threshold"] * (rule.clear / rule.threshold)
        return AlertRule(**{**rule.model_dump(), **values})


class RuleChanges(Parameters):
    """Changes by rule."""

    anomaly_ratio: RuleChange = RuleChange()
    level_shift: RuleChange = RuleChange()
    silent_device: RuleChange = RuleChange()
    late_data: RuleChange = RuleChange()
    quarantine_rate: RuleChange = RuleChange()
    capture_gap: RuleChange = RuleChange()
    line_lag: RuleChange = RuleChange()
    capture_down: RuleChange = RuleChange()
    messages_dropped: RuleChange = RuleChange()
    disk_low: RuleChange = RuleChange()
    sink_backlog: RuleChange = RuleChange()

    def of(self, rule: str) -> RuleChange:
        """The change of one rule."""
        change: RuleChange = getattr(self, rule)
        return change


class RuleException(RuleChanges):
    """Rules that differ for a line, or for series.

    Attributes:
        match: `<line>` for everything of a line, `<line>/<machine>` or `<line>/<machine>/<name>`
            for series of it; a valve's operation may follow. `<line>/sink/<name>` for a
            database, `<line>/source/<name>` and `<line>/broker/<name>` for a source and its
            broker, `<line>/buffer` for the buffer. `*` and `?` are allowed everywhere.
    """

    match: Annotated[str, Field(min_length=1)]

    def applies(self, line: str, series: str) -> bool:
        """True where the pattern names the series, or the line of it."""
        if "/" not in self.match:
            return fnmatch.fnmatchcase(line, self.match)
        name = f"{line}/{series}"
        patterns = (self.match, f"{self.match}/*")
        return bool(series) and any(fnmatch.fnmatchcase(name, one) for one in patterns)


def _prefix(prefix: str) -> str:
    levels = prefix.split("/")
    if CONTROL.search(prefix) or set(prefix) & set("+#") or prefix.startswith("$"):
        raise ValueError("should not contain '+', '#' or control characters, nor start with '$'")
    if not all(levels):
        raise ValueError("should be one or more topic levels such as 'iiot', no '/' at the ends")
    return prefix


def _http(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        # the text is not repeated: a URL may carry a password
        raise ValueError("should be a URL that starts with http:// or https://")
    return url.strip()


class MqttAnnouncement(Parameters):
    """Alerts as retained messages at one of the plant's brokers."""

    enabled: bool = True
    source: str | None = None
    """Source whose broker, user and encryption are used; default the first broker."""
    prefix: Annotated[str, AfterValidator(_prefix)] = "iiot"
    """Topics are `<prefix>/alerts/<line>/<rule>/<series>`."""
    client_id: Annotated[str, Field(min_length=1)] | None = None
    """Default: that of the source with `-alerts` behind it."""
    keep_resolved_s: NotNegative = 300.0
    """How long the retained message says `resolved` before it is cleared."""

    @property
    def root(self) -> str:
        """What every topic starts with."""
        return f"{self.prefix}/alerts/"


class Webhook(Parameters):
    """A receiver that alerts are posted to as JSON."""

    url: Annotated[SecretStr, AfterValidator(lambda url: SecretStr(_http(url.get_secret_value())))]
    """http or https; a redirect is not followed. May carry a secret: write `${NAME}` then."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    """Name of the header that carries `token`."""
    token: SecretStr | None = None
    """Value of that header, such as `Bearer …`; from `${NAME}` or `token_file`."""
    hmac_key: SecretStr | None = None
    """Signs time and body with HMAC-SHA256; from `${NAME}` or `hmac_key_file`."""
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0


class AlertSettings(Parameters):
    """Everything that a plant file says of alerts."""

    enabled: bool = True
    delay_s: Annotated[float, Field(ge=0, le=3_600)] = 20.0
    """How long data may be under way: a moment is evaluated that much later."""
    every_s: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    """How often `iiot alerts run` looks."""
    rules: RuleChanges = RuleChanges()
    exceptions: tuple[RuleException, ...] = ()
    """Where several match, later ones override earlier ones."""
    maintenance: tuple[Maintenance, ...] = ()
    mqtt: MqttAnnouncement = MqttAnnouncement()
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [window.name for window in self.maintenance]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"should have each maintenance once; '{name}' stands twice")
        for where, changes in (("rules", self.rules), *((e.match, e) for e in self.exceptions)):
            for name in DEFAULT_RULES:
                rule = changes.of(name).over(self.rules.of(name).over(DEFAULT_RULES[name]))
                if rule.clear > rule.threshold:
                    raise ValueError(
                        f"{where}: {name}: clear {rule.clear:g} should not be above threshold"
                        f" {rule.threshold:g}"
                    )
        return self

    def rule(self, name: str, line: str, series: str = "") -> AlertRule:
        """The settings in force of a rule for a series; without one, for the line itself."""
        rule = self.rules.of(name).over(DEFAULT_RULES[name])
        for exception in self.exceptions:
            if exception.applies(line, series):
                rule = exception.of(name).over(rule)
        return rule if self.enabled else rule.model_copy(update={"enabled": False})


def unmatched(settings: AlertSettings, lines: Collection[str]) -> Iterator[Problem]:
    """Patterns of exceptions and maintenance windows that match no line."""
    patterns = [
        (("alerts", "exceptions", i, "match"), exception.match.partition("/")[0])
        for i, exception in enumerate(settings.exceptions)
    ] + [
        (("alerts", "maintenance", i, "lines"), pattern)
        for i, window in enumerate(settings.maintenance)
        for pattern in window.lines
    ]
    for location, pattern in patterns:
        if not any(fnmatch.fnmatchcase(line, pattern) for line in lines):
            yield Problem(location, f"'{pattern}' matches no line; {nearest(pattern, lines)}")


def clash(root: str, prefixes: dict[str, str]) -> str | None:
    """What is wrong where alerts would fall among the topics of a line; None: nothing.

    Args:
        root: what every topic of an alert starts with.
        prefixes: what every topic of a line starts with, by line.
    """
    for line, prefix in prefixes.items():
        if root.startswith(prefix) or prefix.startswith(root):
            return (
                f"topics below '{root}' would be captured as readings of line '{line}', which"
                f" takes '{prefix}#'; choose another prefix, or switch alerts.mqtt off"
            )
    return None
