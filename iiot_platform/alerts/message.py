"""What is told of an alert: a sentence for people, the same as JSON, and where to look."""

import shlex
import uuid
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.evaluation import Alert
from iiot_platform.alerts.lifecycle import AlertKey, AlertState, Evidence
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, hour_of
from iiot_platform.core.names import path_segment
from iiot_platform.core.pages import partition_page, run_page

VERSION: Final = 1
_NO_SERIES: Final = "-"
BOARDS: Final = {
    schema.SIGNAL_ANOMALIES.name: "iiot-signals",
    schema.VIBRATION_ANOMALIES.name: "iiot-vibration",
    schema.VALVE_ANOMALIES.name: "iiot-valves",
    schema.ELECTRICAL_CYCLES.name: "iiot-electrical",
}


@dataclass(frozen=True)
class Places:
    """Where to look; what is not known is left out.

    Attributes:
        plant: name of the plant.
        dagster_url: address of Dagster's pages.
        grafana_url: address of Grafana.
    """

    plant: str
    dagster_url: str | None = None
    grafana_url: str | None = None


def alert_id(alert: Alert) -> str:
    """Names one message: the same for the same alert in the same state."""
    key = alert.key
    parts = (key.line, key.rule, key.series, str(alert.fired_ms), alert.state)
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()


def topic(root: str, key: AlertKey) -> str:
    """The topic of an alert: `<root><line>/<rule>/<series>`.

    The series has its own levels, `-` stands for the line itself. Names are percent-encoded: none
    adds a level or a wildcard, and no two share a topic.
    """
    series = [path_segment(part) for part in key.series.split("/")] if key.series else [_NO_SERIES]
    return root + "/".join((path_segment(key.line), key.rule, *series))


def body(alert: Alert, places: Places) -> dict[str, Any]:
    """An alert as values that JSON knows; times are ISO 8601 in UTC."""
    key, rule = alert.key, RULES[alert.key.rule]
    return {
        "version": VERSION,
        "id": alert_id(alert),
        "state": alert.state,
        "plant": places.plant,
        "line": key.line,
        "rule": key.rule,
        "series": key.series,
        "quantity": "" if alert.evidence is None else alert.evidence.quantity,
        "severity": alert.severity,
        "summary": summary(alert),
        "value": round(alert.value, 6),
        "peak": round(alert.peak, 6),
        "unit": rule.unit,
        "threshold": alert.threshold,
        "clear": alert.clear,
        "since": moment(alert.since_ms),
        "fired_at": moment(alert.fired_ms),
        "resolved_at": None if alert.resolved_ms is None else moment(alert.resolved_ms),
        "held_back": alert.held,
        "look_at": look_at(key, alert.evidence, places),
    }


def summary(alert: Alert) -> str:
    """What, where, since when, in one sentence."""
    key, rule = alert.key, RULES[alert.key.rule]
    where = f"{key.line} {key.series}".strip()
    begun = f"{where}: {rule.title} since {moment(alert.since_ms)}"
    if alert.state == "resolved":
        over = f"; over at {moment(alert.resolved_ms or alert.fired_ms)}"
        return f"{begun}{over}" + (f" ({alert.reason})" if alert.reason else "")
    value = f"{alert.value:.4g} {rule.unit}".strip()
    of = f" of {alert.evidence.quantity}" if alert.evidence and alert.evidence.quantity else ""
    if alert.detail:
        return f"{begun}: {alert.detail}"
    return f"{begun}; {rule.value}{of}: {value}, threshold {alert.threshold:g}"


def pending_summary(key: AlertKey, state: AlertState) -> str:
    """The same of an alert that has not lasted long enough."""
    rule = RULES[key.rule]
    value = f"{state.value:.4g} {rule.unit}".strip()
    return f"{rule.value}: {value}, since {moment(state.since_ms)}"


def look_at(key: AlertKey, evidence: Evidence | None, places: Places) -> dict[str, str]:
    """What to look at: a hint, a command, and pages where their addresses are known."""
    found = {"hint": RULES[key.rule].look}
    if evidence is not None:
        words = ["iiot", "explain", "--line", key.line, "--table", evidence.table]
        words += ["--series", key.series, "--at", moment(evidence.ts_ms)]
        found["explain"] = shlex.join(words)
        if places.dagster_url:
            if _is_uuid(evidence.run_id):
                found["run"] = run_page(places.dagster_url, evidence.run_id)
            found["partition"] = partition_page(
                places.dagster_url, key.line, evidence.table, hour_of(evidence.ts_ms)
            )
    if places.grafana_url:
        board = "iiot-line" if evidence is None else BOARDS.get(evidence.table, "iiot-line")
        found["dashboard"] = f"{places.grafana_url}/d/{board}?var-line={quote(key.line, safe='')}"
    return found


def moment(ts_ms: int) -> str:
    """A time as it is told: ISO 8601, UTC, as exact as it is."""
    at = from_ms(ts_ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{ts_ms % 1_000:03d}Z" if ts_ms % 1_000 else "Z")


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
