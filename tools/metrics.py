"""Write the reference of the metrics: `python -m tools.metrics`; `--check` only compares."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from iiot_platform.config.endpoint import BUFFER_PORT, LOOPBACK, PLATFORM_PORT
from iiot_platform.metrics import buffer, platform
from iiot_platform.metrics.families import SECONDS_BOUNDS
from iiot_platform.metrics.metric import Metric
from tools import generated

FILE: Final = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
_HEAD: Final = f"""\
# Metrics

Generated from `iiot_platform/metrics` by `make dashboards`; do not edit.

Buffer and platform tell Prometheus how they do. Each has an endpoint with three paths:

| path | what it answers |
|---|---|
| `/metrics` | the metrics below |
| `/healthz` | 200 while the process does its work, whatever the world around it does; else 503 |
| `/readyz` | 200 while it can serve its purpose, else 503: the log can not be written, a source \
or the buffer is away, the ledger can not be read, pool or daemon do not answer |

Both checks answer with a JSON body that names what is wrong and why.

| process | address | variable |
|---|---|---|
| buffer (`iiot capture`) | `{LOOPBACK}:{BUFFER_PORT}` | `IIOT_BUFFER_METRICS`, `off` for none |
| platform (`iiot metrics --serve`) | `{LOOPBACK}:{PLATFORM_PORT}` | `IIOT_METRICS`, or `--host` \
and `--port` |

`iiot metrics` without `--serve` prints the platform's metrics once. A buffer whose port is taken
says so in its log and captures all the same.

An address that other machines reach wants TLS and a token; otherwise the process says what is
missing. `IIOT_METRICS_CERT_FILE` and `IIOT_METRICS_KEY_FILE` name certificate and key (PEM),
`IIOT_METRICS_TOKEN_FILE` a file with the token (or `IIOT_METRICS_TOKEN` holds it), which is shown
as `Authorization: Bearer <token>`. `IIOT_METRICS_INSECURE=true` is the consent to do without both,
in a network where that is enough. With a token, `/healthz` and `/readyz` still tell everyone
whether they pass, and the reasons only to those who show it.

`deploy/prometheus` has a configuration that scrapes both, and alert rules; the dashboard
*Platform* in `deploy/grafana` shows the metrics. The buffer counts per commit, not per message.
The platform reads ledger, log, pool and Dagster's storage when somebody asks, at most every two
seconds and with 5 % of a core at most. Both also serve `process_*` (CPU, memory, open files).

The counter of a broker's own drops is read from `$SYS/broker/publish/messages/dropped` over a
connection of its own (client id of the source with `-watch`), never stored, and absent where the
broker tells none.
"""


def rendered() -> str:
    """The text of the reference."""
    parts = [_HEAD]
    for title, found in (("Buffer", buffer.METRICS), ("Platform", platform.METRICS)):
        parts.append("\n".join(_section(title, found)))
    bounds = ", ".join(f"{bound:g}" for bound in SECONDS_BOUNDS)
    parts.append(f"Histograms have the bounds {bounds} seconds.")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _section(title: str, found: Iterable[Metric]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| metric | type | labels | unit | what it says |"
    yield "|---|---|---|---|---|"
    for metric in found:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.name}`", metric.kind, labels, metric.unit, metric.description)
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    return generated.main("tools.metrics", __doc__, FILE.parent, FILE.name, {FILE.name: rendered()})


if __name__ == "__main__":
    sys.exit(main())
