"""`iiot dagster`: one of Dagster's processes, for containers and units that run each alone."""

import os
import signal
from typing import Annotated, NamedTuple, NoReturn, Self

import typer

from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import prepare_instance

dagster = typer.Typer(
    help="Run one of Dagster's processes, which takes the place of this one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

CODE_SERVER = "127.0.0.1:4000"
WEB_SERVER = "127.0.0.1:3000"

Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Address to listen on.")]
Code = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the code server listens.")]


class _Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Self:
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - ports
            raise ConfigError(f"got the address '{text}'; should be like {CODE_SERVER}")
        return cls(host.strip("[]"), int(port))


@dagster.command("code-server")
def code_server(context: typer.Context, *, listen: Listen = CODE_SERVER) -> None:
    """Load the definitions for the other processes; puts the plant file in force."""
    host, port = _Address.of(listen)
    settings = _prepared(context)
    _become(processes.code_server(settings, context.obj, host=host, port=port))


@dagster.command("pool")
def pool(context: typer.Context) -> None:
    """Execute the runs in warm processes; found through a socket below IIOT_HOME."""
    settings = _prepared(context)
    _become(processes.pool(settings, context.obj))


@dagster.command("daemon")
def daemon(context: typer.Context, *, code_server: Code = CODE_SERVER) -> None:
    """Evaluate sensors, schedules and backfills."""
    code = _Address.of(code_server)
    settings = _prepared(context)
    _become(
        processes.daemon(settings, context.obj, code_host=code.host, code_port=code.port),
    )


@dagster.command("webserver")
def webserver(
    context: typer.Context, *, listen: Listen = WEB_SERVER, code_server: Code = CODE_SERVER
) -> None:
    """Serve the UI and its API, which know no log-in: keep a proxy before any other address."""
    host, port = _Address.of(listen)
    code = _Address.of(code_server)
    settings = _prepared(context)
    _become(
        processes.webserver(
            settings, context.obj, code_host=code.host, code_port=code.port, host=host, port=port
        )
    )


@dagster.command("pacemaker")
def pacemaker(
    context: typer.Context,
    *,
    webserver: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the web server listens.")
    ] = WEB_SERVER,
) -> None:
    """Start live batches between the daemon's looks, where the plant file wants that."""
    host, port = _Address.of(webserver)
    settings = _prepared(context)
    _become(processes.pacemaker(settings, context.obj, host=host, port=port))


def _prepared(context: typer.Context) -> Settings:
    settings = Settings.from_environ(context.obj)
    prepare_instance(settings.home)
    return settings


def _become(command: processes.Command) -> NoReturn:
    """Signals and exit code are then those of the process itself.

    A shell that starts a process in the background has it ignore SIGINT. Dagster lets SIGTERM do
    what SIGINT does, and would ignore both.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(command.argv[0], command.argv, dict(command.environ))  # noqa: S606 - our own commands
