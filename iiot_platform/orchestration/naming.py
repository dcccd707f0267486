"""What lines are called in Dagster.

Its names (of jobs, groups, outputs) are letters, digits and underscores; asset keys are any text.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from dagster import AssetCheckKey, AssetKey

from iiot_platform.core.errors import ConfigError
from iiot_platform.core.pages import asset_prefix, dagster_name
from iiot_platform.core.schema import ACTIVITY, READINGS, TABLES, Table

ASSET_TABLES: Final[dict[str, Table]] = {
    name: table for name, table in TABLES.items() if name != ACTIVITY.name
}
"""The tables that are assets; the others are the platform's own bookkeeping."""

LINE_TAG: Final = "iiot/line"
KIND_TAG: Final = "iiot/kind"
MAX_RUNTIME_TAG: Final = "dagster/max_runtime"
LO_TAG: Final = "iiot/lo"
HI_TAG: Final = "iiot/hi"
HOUR_TAG: Final = "iiot/hour"
ATTEMPT_TAG: Final = "iiot/attempt"
PACED_TAG: Final = "iiot/paced"
"""On runs that the pacemaker has started."""
SENSOR: Final = "new_data"
LIVE: Final = "live"
RERUN: Final = "rerun"
CATCH_UP: Final = "catch_up"
SETTLE: Final = "settle"
NIGHTLY: Final = "nightly_rerun"
TIDY: Final = "tidy"
PRUNE: Final = "prune"

COMPLETENESS: Final = "completeness"
LAG_WITHIN_BOUND: Final = "lag_within_bound"
DELIVERY: Final = "delivery"
LIVE_EQUALS_RERUN: Final = "live_equals_rerun"

_LIVE_MAX_S: Final = 600


class NameClashError(ConfigError):
    """Two lines would have one name in Dagster."""

    def __init__(self, first: str, second: str, name: str) -> None:
        super().__init__(
            f"lines '{first}' and '{second}' are both called '{name}' in Dagster; rename one"
        )


@dataclass(frozen=True)
class LineNames:
    """Everything that is named after one line.

    Attributes:
        line: the line's own name.
        safe: its name in Dagster.
        prefix: what the keys of its assets begin with.
    """

    line: str
    safe: str
    prefix: str

    @property
    def plain(self) -> "LineNames":
        """The same with keys that are names as well, which outputs are made of."""
        return replace(self, prefix=self.safe)

    @property
    def raw(self) -> AssetKey:
        """Key of the capture log."""
        return AssetKey([self.prefix, "raw"])

    def sink(self, sink: str) -> AssetKey:
        """Key of the line's rows in a database."""
        return AssetKey([self.prefix, sink])

    def table(self, table: str) -> AssetKey:
        """Key of a table."""
        return AssetKey([self.prefix, table])

    @property
    def completeness(self) -> AssetCheckKey:
        """Check that every offset is there."""
        return AssetCheckKey(self.table(READINGS.name), COMPLETENESS)

    @property
    def lag_within_bound(self) -> AssetCheckKey:
        """Check that nothing waits for longer than the plant file allows."""
        return AssetCheckKey(self.table(READINGS.name), LAG_WITHIN_BOUND)

    @property
    def live_equals_rerun(self) -> AssetCheckKey:
        """Check that a computation of the whole hour gives what stood, bit for bit."""
        return AssetCheckKey(self.table(READINGS.name), LIVE_EQUALS_RERUN)

    def delivery(self, sink: str) -> AssetCheckKey:
        """Check that a database takes what it is given."""
        return AssetCheckKey(self.sink(sink), DELIVERY)

    @property
    def live_job(self) -> str:
        """Job that takes the next micro-batch."""
        return f"live_{self.safe}"

    @property
    def live_tags(self) -> dict[str, str]:
        """What every run of it is tagged with."""
        return {LINE_TAG: self.line, KIND_TAG: LIVE, MAX_RUNTIME_TAG: str(_LIVE_MAX_S)}

    @property
    def rerun_job(self) -> str:
        """Job that computes a dirty hour again."""
        return f"rerun_{self.safe}"

    @property
    def catch_up_job(self) -> str:
        """Job that hands long backlogs over to the databases."""
        return f"catch_up_{self.safe}"


def line_names(lines: Iterable[str]) -> tuple[LineNames, ...]:
    """The names of each line.

    Raises:
        NameClashError: two lines would share a name.
    """
    names: dict[str, LineNames] = {}
    for line in lines:
        safe = dagster_name(line)
        if safe in names:
            raise NameClashError(names[safe].line, line, safe)
        names[safe] = LineNames(line, safe, asset_prefix(line))
    return tuple(names.values())
