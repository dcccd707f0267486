"""The queries behind Grafana's alert rules: InfluxQL over the declared tables.

The same text runs on InfluxDB 1.8+, 2.x and 3: no database or retention policy in FROM, and
Grafana's `$timeFilter` for the time.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.samples import SHIFT, TESTED, ratio_columns
from iiot_platform.config.alerts import DEFAULT_RULES, AlertRule, AlertSettings, RuleException
from iiot_platform.core import schema
from iiot_platform.core.schema import Table

_COUNTED: Final = {
    schema.SIGNALS.name: "value",
    schema.STATES.name: "value",
    schema.VIBRATION_ANOMALIES.name: "vib_accel_rms_total",
    schema.VALVE_ANOMALIES.name: "value",
    schema.ELECTRICAL_READINGS.name: "device_state",
}
"""Tables that a device's readings stand in, and a field that every row has."""
_OPERATION: Final = "operation_type"
_MINUTE_S: Final = 60
_BUCKETS: Final = 2


class AlertQuery(NamedTuple):
    """One query and how its value is compared.

    Attributes:
        name: unique and lasting.
        title: for people.
        rule: name of the rule.
        settings: of the rule.
        table: table that it reads.
        text: the query, with Grafana's macro for the time.
        tags: the tags that it tells apart.
        window_s: how far back it reads.
        below: fires where the value is below this, instead of above the rule's threshold.
    """

    name: str
    title: str
    rule: str
    settings: AlertRule
    table: Table
    text: str
    tags: tuple[str, ...]
    window_s: int
    below: float | None = None


class _Variant(NamedTuple):
    """The rule for some series: a suffix of its name, further conditions, its settings."""

    suffix: str
    where: tuple[str, ...]
    settings: AlertRule


def alert_queries(settings: AlertSettings) -> Iterator[AlertQuery]:
    """The queries of all rules that depend on what stands in InfluxDB.

    Line lag, sink backlog and the state of the buffer do not stand there. Where several
    exceptions match one series the last one alone counts here.
    """
    for table in TESTED:
        for column, quantity in ratio_columns(table).items():
            what = f"{table.title}, {quantity}" if quantity else table.title
            yield from _newest("anomaly_ratio", table, column, what, settings)
        if SHIFT in table.names("field"):
            yield from _newest("level_shift", table, SHIFT, table.title, settings)
    for name, column in _COUNTED.items():
        yield from _silent(schema.TABLES[name], column, settings)
    summary, quality = schema.LINE_SUMMARY, schema.DATA_QUALITY
    late = f"mean({_name(summary, 'lateness_mean_s')})"
    yield from _of_line("late_data", summary, late, (), settings)
    yield from _of_line("quarantine_rate", summary, "", (), settings)
    gap = (f"{_name(quality, 'reason')} = '{schema.GAP}'",)
    yield from _of_line("capture_gap", quality, f"sum({_name(quality, 'count')})", gap, settings)


def _name(table: Table, column: str) -> str:
    """A declared column's name, quoted."""
    return f'"{table.column(column).name}"'


def _newest(
    rule: str, table: Table, column: str, what: str, settings: AlertSettings
) -> Iterator[AlertQuery]:
    tags = table.names("tag")
    for variant in _variants(rule, settings, tags):
        window = round(variant.settings.window_s)
        yield AlertQuery(
            f"{rule}/{table.name}/{column}{variant.suffix}",
            _title(rule, what, variant),
            rule,
            variant.settings,
            table,
            _select(f'last("{column}")', table, variant.where, tags),
            tags,
            window,
        )


def _silent(table: Table, column: str, settings: AlertSettings) -> Iterator[AlertQuery]:
    """Two intervals on end without a reading, of a device that had one in the window.

    It therefore fires one to two thresholds behind the last reading, by event time.
    """
    rule = "silent_device"
    tags = tuple(tag for tag in table.names("tag") if tag != _OPERATION)
    for variant in _variants(rule, settings, tags):
        every = max(round(variant.settings.threshold), 1)
        value = f'moving_average(count("{column}"), {_BUCKETS})'
        yield AlertQuery(
            f"{rule}/{table.name}{variant.suffix}",
            _title(rule, table.title, variant),
            rule,
            variant.settings,
            table,
            _select(value, table, variant.where, (f"time({every}s)", *tags), fill=True),
            tags,
            max(round(variant.settings.window_s), 3 * every),
            below=0.5 / _BUCKETS,
        )


def _of_line(
    rule: str, table: Table, value: str, where: tuple[str, ...], settings: AlertSettings
) -> Iterator[AlertQuery]:
    tags = (schema.LINE.name,)
    for variant in _variants(rule, settings, tags):
        window = round(variant.settings.window_s)
        minutes = window / _MINUTE_S
        yield AlertQuery(
            f"{rule}{variant.suffix}",
            _title(rule, "", variant),
            rule,
            variant.settings,
            table,
            _select(
                value or f"sum({_name(schema.LINE_SUMMARY, 'quarantined')}) / {minutes:g}",
                table,
                (*where, *variant.where),
                tags,
            ),
            tags,
            window,
        )


def _title(rule: str, what: str, variant: _Variant) -> str:
    title = RULES[rule].title.capitalize()
    suffix = f" ({variant.suffix.lstrip(' ')})" if variant.suffix else ""
    return (f"{title}: {what}" if what else title) + suffix


def _select(
    value: str, table: Table, where: tuple[str, ...], by: tuple[str, ...], *, fill: bool = False
) -> str:
    groups = ", ".join(one if one.startswith("time(") else f'"{one}"' for one in by)
    stands = f"{_name(table, table.mark)} != '{schema.DELETED}'"
    conditions = " AND ".join((*where, "$timeFilter", stands))
    text = f'SELECT {value} AS "value" FROM "{table.measurement}" WHERE {conditions}'
    return f"{text} GROUP BY {groups}" + (" fill(0)" if fill else "")


def _variants(rule: str, settings: AlertSettings, tags: tuple[str, ...]) -> Iterator[_Variant]:
    """The rule where no exception counts, and as each exception has it."""
    base = settings.rules.of(rule).over(DEFAULT_RULES[rule])
    of_line = len(tags) == 1
    concerned = [
        exception
        for exception in settings.exceptions
        if exception.of(rule).model_dump(exclude_none=True)
        and ("/" not in exception.match or not of_line)
    ]
    conditions = [_conditions(exception, tags) for exception in concerned]
    for i, (exception, own) in enumerate([(None, ()), *zip(concerned, conditions, strict=True)]):
        found = base if exception is None else exception.of(rule).over(base)
        if settings.enabled and found.enabled:
            later = tuple(_negated(one) for one in conditions[i:])
            suffix = "" if exception is None else f" {exception.match}"
            yield _Variant(suffix, (*(f"{tag} =~ {to}" for tag, to in own), *later), found)


def _conditions(exception: RuleException, tags: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The tags that an exception restricts, each with a pattern; each part is one tag."""
    parts = exception.match.split("/", 2)
    if len(parts) > 2 and _OPERATION in tags and "/" in parts[2]:  # noqa: PLR2004 - name and more
        parts[2:] = parts[2].rsplit("/", 1)
    return tuple((f'"{tag}"', _regex(part)) for tag, part in zip(tags, parts, strict=False))


def _negated(conditions: tuple[tuple[str, str], ...]) -> str:
    return f"({' OR '.join(f'{tag} !~ {to}' for tag, to in conditions)})"


def _regex(pattern: str) -> str:
    """A pattern with `*`, `?` and `[…]` as InfluxQL writes a regular expression."""
    parts = re.findall(r"\*|\?|\[!?[^\]]+\]|.", pattern, re.DOTALL)
    words = {"*": ".*", "?": "."}
    text = "".join(
        words.get(part) or (part.replace("[!", "[^") if len(part) > 1 else re.escape(part))
        for part in parts
    )
    return f"/^{text.replace('/', chr(92) + '/')}$/"
