"""Write Grafana's alerting provisioning: `python -m tools.alerts`; `--check` only looks."""

import sys
from pathlib import Path
from typing import Final

from iiot_platform.alerts.grafana import rendered
from tools import generated

FOLDER: Final = (
    Path(__file__).resolve().parents[1].joinpath("deploy", "grafana", "provisioning", "alerting")
)


def outdated(folder: Path = FOLDER) -> list[str]:
    """The files that differ from their source, are missing, or have none."""
    return generated.outdated(folder, "*.yaml", rendered())


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    return generated.main("tools.alerts", __doc__, FOLDER, "*.yaml", rendered())


if __name__ == "__main__":
    sys.exit(main())
