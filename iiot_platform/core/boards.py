"""Grafana's dashboards as an installation shows them: its own addresses, its own time."""

import json
from typing import Final

DAGSTER_URL: Final = "dagster_url"
"""The variable of a dashboard that links to Dagster are made of."""


def localized(board: str, *, dagster_url: str, timezone: str) -> str:
    """The text of a dashboard for an installation.

    Args:
        board: the text of a dashboard as it is shipped.
        dagster_url: how a browser reaches the Dagster UI.
        timezone: the plant's.
    """
    found = json.loads(board)
    found["timezone"] = timezone
    for variable in found["templating"]["list"]:
        if variable["name"] == DAGSTER_URL:
            variable["query"] = dagster_url
    return json.dumps(found, ensure_ascii=False, indent=2) + "\n"
