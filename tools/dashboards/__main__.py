"""Write the dashboards: `python -m tools.dashboards`; `--check` only says whether they are old."""

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools import generated
from tools.dashboards.electrical import electrical
from tools.dashboards.plant import line, plant
from tools.dashboards.platform import platform
from tools.dashboards.quality import quality
from tools.dashboards.signals import signals
from tools.dashboards.valves import valves
from tools.dashboards.vibration import vibration

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


@functools.cache
def rendered() -> Mapping[str, str]:
    """The text of every dashboard file, by its name."""
    boards = (plant, line, signals, vibration, valves, electrical, quality, platform)
    return {f"{board.__name__}.json": _text(board()) for board in boards}


def _text(board: Dashboard) -> str:
    """A dashboard as it is stored, its panels numbered in their order."""
    built = board.build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def outdated(folder: Path = FOLDER) -> list[str]:
    """The files that differ from their source, are missing, or have none."""
    return generated.outdated(folder, "*.json", rendered())


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    return generated.main("tools.dashboards", __doc__, FOLDER, "*.json", rendered())


if __name__ == "__main__":
    sys.exit(main())
