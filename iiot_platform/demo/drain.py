"""When the demo has in its tables what was published."""

from collections.abc import Mapping, Sequence

from iiot_platform.core.paths import Home
from iiot_platform.demo import outcome
from iiot_platform.demo.progress import Published
from iiot_platform.engine.status import PlantStatus

Gained = Mapping[str, tuple[int, int]]
"""The offsets [from, to) that the log of each line has gained."""


class Drain:
    """Compares what was published with what was captured and computed.

    Beside its values the log of a line over OPC UA has history, so its length tells nothing: it is
    read through, once for every length.

    Args:
        home: the demo's home.
        opcua_lines: the lines over OPC UA.
    """

    def __init__(self, home: Home, opcua_lines: Sequence[str]) -> None:
        self._home = home
        self._lines = tuple(opcua_lines)
        self._read: tuple[Gained, dict[str, outcome.Captured]] | None = None

    def is_over(
        self, status: PlantStatus, gained: Gained, mqtt: Published, opcua: Published
    ) -> bool:
        """True once as much was captured as was published, and all of it was computed."""
        arrived = all(
            gained[line][1] - gained[line][0] >= count
            for line, count in mqtt.expected.items()
            if line in gained
        )
        if not arrived or any(line.lag_rows for line in status.lines):
            return False
        return not outcome.values_missing(opcua.shown_per_line, self.captures(gained))

    def captures(self, gained: Gained) -> dict[str, outcome.Captured]:
        """What the log has gained of each line over OPC UA."""
        if self._read is None or self._read[0] != gained:
            found = {
                line: outcome.captured(self._home, line, *gained.get(line, (0, 0)))
                for line in self._lines
            }
            self._read = gained, found
        return self._read[1]
