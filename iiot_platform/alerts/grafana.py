"""Grafana's alerting provisioning: rules, contact point, policies and mute timings as files."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import yaml

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.grafana_queries import AlertQuery, alert_queries
from iiot_platform.alerts.message import BOARDS
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.config.maintenance import DAYS, Maintenance
from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.errors import StorageError

DATASOURCE_UID: Final = "iiot-influxdb"
CONTACT: Final = "iiot"
FOLDER: Final = "IIoT alerts"
_EXPRESSION: Final = "__expr__"
_EVERY: Final = {"silent_device": "60s"}
_DAY_MINUTES: Final = 24 * 60
_WEEKDAYS: Final = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
_MESSAGE: Final = (
    "{{ range .Alerts.Firing }}{{ .Annotations.description }}"
    ' Firing since {{ .StartsAt.UTC.Format "2006-01-02T15:04:05Z" }}.\n{{ end }}'
    "{{ range .Alerts.Resolved }}{{ .Annotations.summary }}: fired at"
    ' {{ .StartsAt.UTC.Format "2006-01-02T15:04:05Z" }},'
    ' over at {{ .EndsAt.UTC.Format "2006-01-02T15:04:05Z" }}.\n{{ end }}'
)
"""What a person reads: the texts of rules know no time, those of a contact point do."""
_HEAD: Final = """\
# Generated (iiot grafana, or make dashboards): what is changed here is lost.
"""
_CONTACT_HEAD: Final = """\
# From Grafana's environment:
#   ALERT_WEBHOOK_URL    where alerts are posted to; Grafana does not start without it
#   ALERT_WEBHOOK_TOKEN  sent as `Authorization: Bearer …`; may be empty
"""
_POLICY_HEAD: Final = """\
# Grafana has one tree of policies: this one takes the place of what was made in the browser.
"""


def rendered(plant: Plant | None = None) -> dict[str, str]:
    """The text of every file by its name; without a plant under the defaults."""
    settings = AlertSettings() if plant is None else plant.alerts
    lines = () if plant is None else plant.line_names
    zone = "UTC" if plant is None else plant.timezone
    return {
        "rules.yaml": _text({"groups": list(_groups(settings))}),
        "contact-points.yaml": _text({"contactPoints": [_contact_point()]}, _CONTACT_HEAD),
        "policies.yaml": _text({"policies": [_policy(settings, lines)]}, _POLICY_HEAD),
        "mute-timings.yaml": _text({"muteTimes": _mute_timings(settings, zone)}),
    }


def write(folder: Path, plant: Plant | None = None) -> list[Path]:
    """Writes the files.

    Raises:
        StorageError: the folder can not be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in rendered(plant).items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise StorageError(f"'{folder}' can not be written: {error.strerror}") from error
    return written


def _text(content: dict[str, Any], head: str = "") -> str:
    body = yaml.safe_dump(
        {"apiVersion": 1, **content}, sort_keys=False, allow_unicode=True, width=100
    )
    return f"{_HEAD}{head}{body}"


def _groups(settings: AlertSettings) -> Iterator[dict[str, Any]]:
    """A group per rule: its rules are evaluated one behind the other."""
    by_rule: dict[str, list[AlertQuery]] = {}
    for query in alert_queries(settings):
        by_rule.setdefault(query.rule, []).append(query)
    for rule, queries in by_rule.items():
        yield {
            "orgId": 1,
            "name": rule,
            "folder": FOLDER,
            "interval": _EVERY.get(rule, "10s"),
            "rules": [_rule(query) for query in queries],
        }


def _rule(query: AlertQuery) -> dict[str, Any]:
    settings = query.settings
    condition: dict[str, Any] = {"evaluator": {"type": "gt", "params": [settings.threshold]}}
    if query.below is not None:
        condition = {"evaluator": {"type": "lt", "params": [query.below]}}
    elif settings.clear < settings.threshold:
        condition["unloadEvaluator"] = {"type": "lt", "params": [settings.clear]}
    return {
        "uid": f"iiot-{blake2b(query.name.encode(), digest_size=8).hexdigest()}",
        "title": _literal(query.title),
        "condition": "C",
        "data": [
            _query(query),
            _expression("B", {"type": "reduce", "expression": "A", "reducer": "last"}),
            _expression("C", {"type": "threshold", "expression": "B", "conditions": [condition]}),
        ],
        "noDataState": "OK",
        "execErrState": "KeepLast",
        "for": f"{0 if query.below is not None else round(settings.for_s)}s",
        "keepFiringFor": f"{round(settings.clear_for_s)}s",
        "annotations": _annotations(query),
        "labels": {"source": "iiot", "rule": query.rule, "severity": settings.severity},
    }


def _query(query: AlertQuery) -> dict[str, Any]:
    return {
        "refId": "A",
        "relativeTimeRange": {"from": query.window_s, "to": 0},
        "datasourceUid": DATASOURCE_UID,
        "model": {
            "refId": "A",
            "datasource": {"type": "influxdb", "uid": DATASOURCE_UID},
            "query": query.text,
            "rawQuery": True,
            "resultFormat": "time_series",
            "intervalMs": 10_000,
            "maxDataPoints": 10_000,
        },
    }


def _expression(ref_id: str, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "refId": ref_id,
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": _EXPRESSION,
        "model": {
            "refId": ref_id,
            "datasource": {"type": _EXPRESSION, "uid": _EXPRESSION},
            **model,
        },
    }


def _annotations(query: AlertQuery) -> dict[str, str]:
    """Texts with Go templates; none holds a dollar sign, which Grafana would expand."""
    rule = RULES[query.rule]
    line = f"{{{{ .Labels.{schema.LINE.name} }}}}"
    tags = [tag for tag in query.tags if tag != schema.LINE.name]
    series = "/".join(f"{{{{ .Labels.{tag} }}}}" for tag in tags)
    where = f"{line} {series}".strip()
    value = "" if query.below is not None else '; {{ printf "%.4g" .Values.B.Value }} '
    said = f"{value}{rule.unit}".rstrip() + (f", {rule.value}" if value else "")
    limit = f"threshold {query.settings.threshold:g} {rule.unit}".strip()
    board = BOARDS.get(query.table.name, "iiot-line")
    return {
        "summary": f"{where}: {rule.title}",
        "description": f"{where}: {rule.title}{said}; {limit}. Look at: {rule.look}.",
        "explain": (
            f"`iiot explain --line {_quoted(schema.LINE.name)} --table {query.table.name}"
            f" --series {_quoted(*tags)} --at now`"
        )
        if tags
        else "`iiot status`",
        "dashboard": (
            f"{{{{ externalURL }}}}d/{board}?var-line={{{{ urlquery .Labels.{schema.LINE.name} }}}}"
        ),
    }


def _quoted(*tags: str) -> str:
    """Labels as one word of a shell, whatever stands in them."""
    return "'" + "/".join(f"{{{{ reReplaceAll `'` `'\\''` .Labels.{tag} }}}}" for tag in tags) + "'"


def _contact_point() -> dict[str, Any]:
    return {
        "orgId": 1,
        "name": CONTACT,
        "receivers": [
            {
                "uid": "iiot-webhook",
                "type": "webhook",
                "settings": {
                    "url": "$ALERT_WEBHOOK_URL",
                    "httpMethod": "POST",
                    "authorization_scheme": "Bearer",
                    "authorization_credentials": "$ALERT_WEBHOOK_TOKEN",
                    "message": _MESSAGE,
                },
                "disableResolveMessage": False,
            }
        ],
    }


def _policy(settings: AlertSettings, lines: Iterable[str]) -> dict[str, Any]:
    """All alerts of ours, grouped by line; a line with windows of its own has its own route."""
    windows = settings.maintenance
    for_all = [_mute_name(window) for window in windows if not window.lines]
    own: dict[str, Any] = {
        "receiver": CONTACT,
        "object_matchers": [["source", "=", "iiot"]],
        "group_by": [schema.LINE.name],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "4h",
    }
    if for_all:
        own["mute_time_intervals"] = for_all
    routes = [
        {
            "receiver": CONTACT,
            "object_matchers": [[schema.LINE.name, "=", _literal(line)]],
            "group_by": [schema.LINE.name],
            "mute_time_intervals": [_mute_name(w) for w in windows if w.covers(line)],
        }
        for line in lines
        if any(window.lines and window.covers(line) for window in windows)
    ]
    if routes:
        own["routes"] = routes
    return {"orgId": 1, "receiver": CONTACT, "group_by": ["alertname"], "routes": [own]}


def _mute_name(window: Maintenance) -> str:
    return _literal(f"iiot {window.name}")


def _literal(text: str) -> str:
    """Text that Grafana must not expand as a variable of its environment."""
    return text.replace("$", "$$")


def _mute_timings(settings: AlertSettings, timezone: str) -> list[dict[str, Any]]:
    return [
        {
            "orgId": 1,
            "name": _mute_name(window),
            "time_intervals": [
                {**interval, "location": timezone}
                for interval in (
                    _weekly(window) if window.days else _once(window, ZoneInfo(timezone))
                )
            ],
        }
        for window in settings.maintenance
    ]


def _weekly(window: Maintenance) -> Iterator[dict[str, Any]]:
    begin, end = window.minutes
    places = [DAYS.index(day) for day in window.days]
    yield {
        "times": [_times(begin, min(end, _DAY_MINUTES))],
        "weekdays": [_WEEKDAYS[place] for place in places],
    }
    if end > _DAY_MINUTES:
        yield {
            "times": [_times(0, end - _DAY_MINUTES)],
            "weekdays": [_WEEKDAYS[(place + 1) % len(_WEEKDAYS)] for place in places],
        }


def _once(window: Maintenance, zone: ZoneInfo) -> Iterator[dict[str, Any]]:
    """The days that it touches, whole ones of a month together."""
    begin, end = (_local(moment, zone) for moment in window.once)
    whole: list[date] = []
    day = begin.date()
    while day <= end.date():
        first = begin.hour * 60 + begin.minute if day == begin.date() else 0
        last = end.hour * 60 + end.minute if day == end.date() else _DAY_MINUTES
        if (first, last) == (0, _DAY_MINUTES) and (not whole or whole[0].month == day.month):
            whole.append(day)
        else:
            if whole:
                yield _days(whole)
            whole = [day] if (first, last) == (0, _DAY_MINUTES) else []
            if first < last and not whole:
                yield {"times": [_times(first, last)], **_days([day])}
        day += timedelta(days=1)
    if whole:
        yield _days(whole)


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)


def _days(days: list[date]) -> dict[str, Any]:
    first, last = days[0], days[-1]
    span = str(first.day) if first == last else f"{first.day}:{last.day}"
    return {"days_of_month": [span], "months": [str(first.month)], "years": [str(first.year)]}


def _times(begin: int, end: int) -> dict[str, str]:
    return {
        "start_time": f"{begin // 60:02d}:{begin % 60:02d}",
        "end_time": f"{end // 60:02d}:{end % 60:02d}",
    }
