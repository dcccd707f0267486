"""The demo's alerts: the process that tells them, and the lines in which the demo repeats them."""

import sys
from collections.abc import Iterator
from typing import Final

from iiot_platform.alerts.firing import standing
from iiot_platform.alerts.message import alert_id, summary, topic
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core.errors import PlatformError
from iiot_platform.core.paths import Home

ALERTS: Final = (sys.executable, "-m", "iiot_platform.cli", "alerts", "run")
_MOST: Final = 5
"""Alerts that are told at a time; of the others their number."""


class AlertNews:
    """What has fired and ended since the demo was started.

    Args:
        home: the demo's home; what stands there was told by an earlier run.
        settings: where the messages go.
    """

    def __init__(self, home: Home, settings: AlertSettings) -> None:
        self._path = home.alerts
        self._root = settings.mqtt.root
        self._known: set[str] = set()
        self.firing = 0
        self.fired = 0
        for _ in self.news():
            pass
        self.fired = 0

    def news(self) -> Iterator[str]:
        """A sentence for each alert that has fired or ended since the last look."""
        try:
            found = standing(self._path)
        except PlatformError:  # the process that writes it says why
            return
        if found is None:
            return
        self.firing = len(found.firing)
        fresh = {alert_id(a): a for a in (*found.ended, *found.firing)}
        fresh = {name: alert for name, alert in fresh.items() if name not in self._known}
        self._known |= fresh.keys()
        self.fired += sum(alert.state == "firing" for alert in fresh.values())
        for alert in list(fresh.values())[:_MOST]:
            yield f"alert {alert.state}: {summary(alert)} (MQTT {topic(self._root, alert.key)})"
        if len(fresh) > _MOST:
            yield f"and {len(fresh) - _MOST} more: iiot alerts list"
