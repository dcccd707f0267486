"""Dagster's processes on this machine: code server, pool of workers, daemon, web server."""

import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iiot_platform.config.settings import Settings
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import LOCATION, instance_environ, write_workspace
from iiot_platform.orchestration.pool import wire

HOST: Final = "127.0.0.1"
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
_TIMEOUT_S: Final = 10.0
_LOADED: Final = (
    "{workspaceOrError{... on Workspace{locationEntries"
    "{name locationOrLoadError{__typename ... on PythonError{message}}}}}}"
)
_DAEMONS: Final = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy}}}}"


@dataclass(frozen=True)
class Command:
    """One process to start; it ends with SIGTERM.

    Attributes:
        name: what it is, for log files and messages.
        argv: command line.
        environ: its whole environment.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]


def dagster_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Dagster's processes, from the one of this process."""
    kept = {
        # without compiled modules every run would start twice as slowly
        name: value
        for name, value in environ.items()
        if name != "PYTHONDONTWRITEBYTECODE"
    }
    search = [str(_PACKAGE_ROOT), *filter(None, environ.get("PYTHONPATH", "").split(":"))]
    return {
        **instance_environ(settings.home, kept),
        "IIOT_DEFINITIONS": settings.definitions,
        "IIOT_HOME": str(settings.home.root),
        "IIOT_PLANT": str(settings.plant_path),
        "PYTHONPATH": ":".join(dict.fromkeys(search)),
        "PYTHONUNBUFFERED": "1",
    }


def code_server(
    settings: Settings, environ: Mapping[str, str], *, port: int, host: str = HOST
) -> Command:
    """The process that has the definitions, and starts the runs; to be ready before the others.

    Reloading the code location in the UI starts its inner process anew, which reads the plant
    file again.
    """
    return Command(
        "dagster-code",
        (
            *(sys.executable, "-m", "dagster", "code-server", "start"),
            *("--module-name", settings.definitions, "--location-name", LOCATION),
            *("--host", host, "--port", str(port)),
            *("--log-level", "warning", "--inject-env-vars-from-instance"),
        ),
        dagster_environ(settings, environ),
    )


def daemon(
    settings: Settings, environ: Mapping[str, str], *, code_port: int, code_host: str = HOST
) -> Command:
    """The process that evaluates sensors, schedules and backfills."""
    return Command(
        "dagster-daemon",
        (
            *(sys.executable, "-m", "dagster._daemon", "run"),
            *("--workspace", str(write_workspace(settings.home, code_port, host=code_host))),
        ),
        dagster_environ(settings, environ),
    )


def pool(settings: Settings, environ: Mapping[str, str], *options: str) -> Command:
    """The processes that execute the runs; without them every run starts one of its own."""
    return Command(
        "dagster-pool",
        (sys.executable, "-m", "iiot_platform.orchestration.pool", *options),
        dagster_environ(settings, environ),
    )


def webserver(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    code_port: int,
    port: int,
    code_host: str = HOST,
    host: str = HOST,
) -> Command:
    """The UI and its GraphQL API; it knows no log-in: another host only behind a proxy."""
    return Command(
        "dagster-webserver",
        (
            *(sys.executable, "-m", "dagster_webserver"),
            *("--host", host, "--port", str(port)),
            *("--workspace", str(write_workspace(settings.home, code_port, host=code_host))),
        ),
        dagster_environ(settings, environ),
    )


def pacemaker(
    settings: Settings, environ: Mapping[str, str], *, port: int, host: str = HOST
) -> Command:
    """The process that starts live batches between the daemon's looks, through the web server."""
    return Command(
        "dagster-pacemaker",
        (
            *(sys.executable, "-m", "iiot_platform.orchestration.pacemaker"),
            *("--url", f"http://{host}:{port}"),
        ),
        dagster_environ(settings, environ),
    )


def log_path(home: Home, command: Command) -> Path:
    """Where the output of a process goes."""
    return home.logs / f"{command.name}.log"


def code_server_ready(port: int) -> bool:
    """True once the code server answers; it has loaded the definitions, or knows why not."""
    # who only starts a process is spared the import of Dagster
    from dagster._core.errors import DagsterUserCodeUnreachableError  # noqa: PLC0415
    from dagster._grpc.client import DagsterGrpcClient  # noqa: PLC0415

    try:
        return bool(DagsterGrpcClient(host=HOST, port=port).ping("ready"))
    except DagsterUserCodeUnreachableError:
        return False


def webserver_ready(port: int) -> bool:
    """True once the UI answers and has the code location.

    Raises:
        RuntimeError: the code location can not be loaded.
    """
    answer = _asked(port, _LOADED)
    if answer is None:
        return False
    entries = answer["workspaceOrError"].get("locationEntries", [])
    location = entries[0]["locationOrLoadError"] if entries else None
    if location is not None and location["__typename"] == "PythonError":
        raise RuntimeError(f"the code location can not be loaded: {location['message']}")
    return location is not None


def pool_ready(home: Home) -> bool:
    """True once the pool takes runs and has loaded the definitions, or knows why not."""
    try:
        report = wire.ask(home.dagster, {"ask": "report"}, timeout_s=_TIMEOUT_S)
    except (wire.PoolAwayError, wire.PoolSilentError):
        return False
    return any(crew["build"] is not None for crew in report["crews"])


def daemon_ready(web_port: int) -> bool:
    """True once every daemon that is needed has said that it lives."""
    answer = _asked(web_port, _DAEMONS)
    if answer is None:
        return False
    statuses = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(status["healthy"] for status in statuses if status["required"])


def graphql(
    port: int,
    query: str,
    variables: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> Any:
    """The answer of a web server on this machine to a query.

    Raises:
        OSError: the server does not answer.
        RuntimeError: it refuses the query.
    """
    return graphql_at(f"http://{HOST}:{port}", query, variables, timeout_s=timeout_s)


def graphql_at(
    url: str,
    query: str,
    variables: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> Any:
    """The answer of the web server at a URL to a query.

    Raises:
        OSError: the server does not answer.
        RuntimeError: it refuses the query.
    """
    request = urllib.request.Request(  # noqa: S310 - http or https, as the settings check
        f"{url}/graphql",
        json.dumps({"query": query, "variables": variables or {}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - as above
        answer = json.load(response)
    if answer.get("errors"):
        raise RuntimeError(f"GraphQL refuses the query: {answer['errors']}")
    return answer["data"]


def _asked(port: int, query: str) -> Any | None:
    """The answer, None while the server does not listen or is still starting."""
    try:
        return graphql(port, query)
    except (OSError, http.client.HTTPException, urllib.error.URLError):
        return None
