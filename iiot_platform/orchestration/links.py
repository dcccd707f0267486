"""Where people find the rows behind an hour: dashboards, the report, a command."""

import shlex
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlencode

from dagster import MetadataValue

from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, from_ms, hour_start_ms, partition_key
from iiot_platform.orchestration.naming import LineNames

DASHBOARDS: Final = {
    schema.SIGNALS.name: "iiot-signals",
    schema.SIGNAL_ANOMALIES.name: "iiot-signals",
    schema.VIBRATION_ANOMALIES.name: "iiot-vibration",
    schema.VALVE_ANOMALIES.name: "iiot-valves",
    schema.ELECTRICAL_READINGS.name: "iiot-electrical",
    schema.ELECTRICAL_CYCLES.name: "iiot-electrical",
    schema.STATES.name: "iiot-line",
    schema.LINE_SUMMARY.name: "iiot-line",
    schema.DATA_QUALITY.name: "iiot-quality",
}
"""By table, the uid of the dashboard that shows it."""


@dataclass(frozen=True)
class Links:
    """Links to what shows the tables.

    Attributes:
        grafana: address of Grafana, None where there is none.
        report: address of the live report, likewise.
    """

    grafana: str | None = None
    report: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of an installation."""
        return cls(settings.grafana_url, settings.report_url)

    def table(self, names: LineNames, table: str) -> dict[str, Any]:
        """What leads to the newest rows of a table."""
        return {
            "show_rows": _command("tables", names, table),
            **self._dashboard(names, table, "now-1h", "now"),
            **({"report": MetadataValue.url(self.report)} if self.report else {}),
        }

    def hour(self, names: LineNames, table: str, hour: int) -> dict[str, Any]:
        """What leads to the rows of an hour, and from a row to what it was made of."""
        begin, end = hour_start_ms(hour), hour_start_ms(hour + 1)
        at = ("--hour", partition_key(hour))
        return {
            "show_rows": _command("tables", names, table, *at),
            **_explanation(names, table, end - 1),
            **self._dashboard(names, table, str(begin), str(end)),
        }

    def _dashboard(self, names: LineNames, table: str, begin: str, end: str) -> dict[str, Any]:
        if self.grafana is None or table not in DASHBOARDS:
            return {}
        query = urlencode({"var-line": names.line, "from": begin, "to": end})
        return {"grafana": MetadataValue.url(f"{self.grafana}/d/{DASHBOARDS[table]}?{query}")}


NO_LINKS: Final = Links()


def _explanation(names: LineNames, table: str, at_ms: int) -> dict[str, Any]:
    """What explains the newest row up to a time, where rows belong to a series."""
    if schema.TABLES[table].kind is None:
        return {}
    at = f"{from_ms(at_ms):%Y-%m-%dT%H:%M:%S}.{at_ms % MS_PER_S:03d}Z"
    command = _command("explain", names, table, "--at", at)
    about = "Any other row: add `--series MACHINE/NAME` and give its time."
    return {"explain": MetadataValue.md(f"    {command}\n\n{about}")}


def _command(name: str, names: LineNames, table: str, *more: str) -> str:
    return shlex.join(("iiot", name, "--line", names.line, "--table", table, *more))
