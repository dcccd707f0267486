"""Write Grafana's alerting provisioning: `python -m tools.alerts`; `--check` only looks."""

import argparse
import sys
from pathlib import Path
from typing import Final

from iiot_platform.alerts.grafana import rendered

FOLDER: Final = (
    Path(__file__).resolve().parents[1].joinpath("deploy", "grafana", "provisioning", "alerting")
)


def outdated(folder: Path = FOLDER) -> list[str]:
    """The files that differ from their source, are missing, or have none."""
    texts = rendered()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    return sorted(name for name in texts | found if texts.get(name) != found.get(name))


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    parser = argparse.ArgumentParser(prog="python -m tools.alerts", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    old = outdated()
    if parser.parse_args().check:
        for name in old:
            sys.stderr.write(f"{name} is outdated; run: python -m tools.alerts\n")
        return 1 if old else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = rendered()
    for name in old:
        if name in texts:
            (FOLDER / name).write_text(texts[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
