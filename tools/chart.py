"""Write what the Helm chart has from other files, and its manifests as they are rendered.

The manifests are checked in, so that they can be read and tested without helm; where helm is not
installed they stay as they are.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools import generated

DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
CHART: Final = DEPLOY / "helm" / "iiot-platform"
RENDERED: Final = DEPLOY / "helm" / "rendered"
KUBERNETES: Final = "1.29.0"
"""The oldest that the chart is for."""
HOW_TO_GET_HELM: Final = "helm is not installed; get it from https://helm.sh/docs/intro/install"


def files() -> dict[str, str]:
    """Copies in the chart: helm reads nothing that lies outside of it."""
    proxy = (DEPLOY / "nginx" / "iiot.conf").read_text(encoding="utf-8")
    # the web server is in the same pod
    for old, new in (
        ("http://dagster-webserver:3000", "http://127.0.0.1:3000"),
        (
            """    # Docker's resolver: the web server may have another address after a restart
    resolver 127.0.0.11 valid=10s;
""",
            "",
        ),
    ):
        if proxy.count(old) != 1:
            raise ValueError(f"deploy/nginx/iiot.conf should have once: {old}")
        proxy = proxy.replace(old, new)
    return {
        "nginx.conf": proxy,
        "rules.yml": (DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"),
    }


def cases() -> list[Path]:
    """The values that manifests are checked in for."""
    return sorted((CHART / "ci").glob("*-values.yaml"))


def template(values: Path, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    """What helm makes of the chart with some values."""
    return subprocess.run(  # noqa: S603 - our own chart
        [
            *("helm", "template", "iiot", CHART, "--namespace", "plant"),
            *("--kube-version", KUBERNETES, "--values", values, *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def rendered() -> dict[str, str]:
    """The manifests of each case.

    Raises:
        RuntimeError: helm refuses the chart.
    """
    texts = {}
    for case in cases():
        done = template(case)
        if done.returncode:
            raise RuntimeError(f"{case.name}: {done.stderr}")
        texts[case.name.replace("-values", "")] = done.stdout
    return texts


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    old = generated.main("tools.chart", __doc__, CHART / "files", "*", files())
    if shutil.which("helm") is None:
        sys.stderr.write(f"note: {HOW_TO_GET_HELM}; {RENDERED.name}/ was not looked at\n")
        return old
    return max(old, generated.main("tools.chart", __doc__, RENDERED, "*.yaml", rendered()))


if __name__ == "__main__":
    sys.exit(main())
