"""Whether one process of an installation does its work: `python -m iiot_platform.probe`.

For health checks of containers and units, every few seconds and beside the work: it imports neither
Dagster nor the command line, which would cost more than what it looks at.

    http URL              answers 200
    code-server ADDRESS   has loaded the definitions, or knows why not
    daemon URL            every daemon has said lately, through the web server, that it lives
    pool                  takes runs and has loaded the definitions, or knows why not
    alerts                has evaluated lately

Exit code 0: yes. 1: no, and why.
"""

import argparse
import json
import os
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 8.0
ALERTS_STALE_S: Final = 120.0
_SERVICE: Final = "DagsterApi"
_DAEMONS: Final = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy}}}}"


class UnwellError(Exception):
    """The process does not do its work."""


def http(url: str) -> None:
    """A server answers 200; certificates count where `PROBE_CA_FILE` names the authorities."""
    _ask(urllib.request.Request(url))  # noqa: S310 - a URL of the installation


def code_server(address: str) -> None:
    """A code server is ready."""
    import grpc  # noqa: PLC0415 - the other checks do without
    from grpc_health.v1.health_pb2 import HealthCheckRequest  # noqa: PLC0415
    from grpc_health.v1.health_pb2_grpc import HealthStub  # noqa: PLC0415

    with grpc.insecure_channel(address) as channel:
        try:
            stub: Any = HealthStub(channel)  # generated, without types
            answer = stub.Check(HealthCheckRequest(service=_SERVICE), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise UnwellError(f"no answer: {error.code().name}") from error
    if answer.status != 1:
        raise UnwellError(f"status {answer.status}")


def daemon(url: str) -> None:
    """Every daemon that is needed lives, as a web server tells."""
    body = json.dumps({"query": _DAEMONS}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/graphql", body, headers)  # noqa: S310 - as above
    answer = json.loads(_ask(request))
    if answer.get("errors"):
        raise UnwellError(f"GraphQL refuses: {answer['errors']}")
    statuses = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    ill = [one["daemonType"] for one in statuses if one["required"] and not one["healthy"]]
    if ill:
        raise UnwellError(f"not healthy: {', '.join(ill)}")


def pool(home: Path) -> None:
    """The pool below a home is ready."""
    from iiot_platform.core.errors import PlatformError  # noqa: PLC0415 - as above
    from iiot_platform.orchestration.pool import wire  # noqa: PLC0415

    try:
        report: Any = wire.ask(home / "dagster", {"ask": "report"}, timeout_s=TIMEOUT_S)
    except PlatformError as error:
        raise UnwellError(str(error)) from error
    if not any(crew["build"] is not None for crew in report["crews"]):
        raise UnwellError("no definitions are loaded yet")


def alerts(home: Path) -> None:
    """Alerts were evaluated lately: each round writes its state."""
    files = [home / f"alerts.sqlite{end}" for end in ("", "-wal")]
    written = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    age_s = time.time() - written
    if age_s > ALERTS_STALE_S:
        raise UnwellError(f"nothing evaluated for {age_s:.0f} s" if written else "nothing yet")


def _ask(request: urllib.request.Request) -> bytes:
    context = None
    if request.type == "https":
        context = ssl.create_default_context(cafile=os.environ.get("PROBE_CA_FILE") or None)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310 - as above
        body: bytes = answer.read()
    return body


def main(arguments: list[str] | None = None) -> int:
    """Look once and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="what")
    for name, of in (("http", "url"), ("code-server", "address"), ("daemon", "url")):
        commands.add_parser(name).add_argument(of)
    commands.add_parser("pool")
    commands.add_parser("alerts")
    given = parser.parse_args(arguments)
    home = Path(os.environ.get("IIOT_HOME", "var"))
    looks: dict[str, Callable[[], None]] = {
        "http": lambda: http(given.url),
        "code-server": lambda: code_server(given.address),
        "daemon": lambda: daemon(given.url),
        "pool": lambda: pool(home),
        "alerts": lambda: alerts(home),
    }
    try:
        looks[given.what]()
    except (UnwellError, OSError, ValueError) as error:
        sys.stderr.write(f"{given.what}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
