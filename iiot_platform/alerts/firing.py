"""What fires now and what has ended lately, as the live process has left it; for those who show."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from iiot_platform.alerts.evaluation import Alert
from iiot_platform.alerts.store import read_states


class Standing(NamedTuple):
    """Alerts of all lines, in the order in which they fired.

    Attributes:
        firing: what fires, held back by a maintenance window or not.
        ended: the newest that are over.
    """

    firing: tuple[Alert, ...]
    ended: tuple[Alert, ...]


def standing(path: Path) -> Standing | None:
    """How the alerts stand; None where none were ever evaluated.

    Args:
        path: `Home.alerts`.

    Raises:
        StorageError: the file can not be read.
    """
    states = read_states(path).values()
    if not states:
        return None
    return Standing(
        _in_order(alert for state in states for alert in state.firing),
        _in_order(alert for state in states for alert in state.recent),
    )


def _in_order(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    return tuple(sorted(alerts, key=lambda alert: (alert.fired_ms, alert.key)))
