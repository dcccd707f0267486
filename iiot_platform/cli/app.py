"""The command line's frame: which commands there are, and how failures are told."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, Final, NamedTuple, NoReturn

import typer

from iiot_platform.core.errors import ConfigError, PlatformError

DISTRIBUTION: Final = "iiot-platform"
EXIT_FAILURE: Final = 1
EXIT_CONFIG: Final = 2


class CommandEntry(NamedTuple):
    """Where a command is defined.

    Attributes:
        target: `module:function`; the function's signature gives arguments and options. A
            `typer.Typer` in its place is a group of commands.
        summary: its line in `iiot --help`, which imports no command.
    """

    target: str
    summary: str


COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "demo": CommandEntry(
        "iiot_platform.cli.demo:demo", "Run the whole platform with a simulated plant."
    ),
    "status": CommandEntry(
        "iiot_platform.cli.status:status", "Show what was captured and computed, per line."
    ),
    "tables": CommandEntry(
        "iiot_platform.cli.tables:tables", "List the tables, or show the newest rows of one."
    ),
    "report": CommandEntry(
        "iiot_platform.cli.report:report", "Show the plant on one HTML page, as a file or live."
    ),
    "metrics": CommandEntry(
        "iiot_platform.cli.metrics:metrics", "Show the platform's metrics, or serve them."
    ),
    "validate": CommandEntry(
        "iiot_platform.cli.validate:validate", "Check a plant file and show what follows from it."
    ),
    "replay": CommandEntry(
        "iiot_platform.cli.replay:replay", "What if: the same hours under another plant file."
    ),
    "alerts": CommandEntry(
        "iiot_platform.cli.alerts:alerts", "Tell, list, replay and provision alerts."
    ),
    "grafana": CommandEntry(
        "iiot_platform.cli.grafana:grafana",
        "Write dashboards and alert rules of a plant for Grafana.",
    ),
    "explain": CommandEntry(
        "iiot_platform.cli.explain:explain", "Show how a row came to be what it is."
    ),
    "quarantine": CommandEntry(
        "iiot_platform.cli.quarantine:quarantine", "List, show and retry what was set aside."
    ),
    "log": CommandEntry(
        "iiot_platform.cli.log:log",
        "Verify the capture log, list it, show, export, import, rebuild it.",
    ),
    "capture": CommandEntry(
        "iiot_platform.cli.capture:capture", "Capture messages into the log (the buffer service)."
    ),
    "dagster": CommandEntry(
        "iiot_platform.cli.dagster_process:dagster", "Run one of Dagster's processes."
    ),
    "batch": CommandEntry(
        "iiot_platform.cli.batch:batch", "Compute what was captured, without Dagster."
    ),
    "opcua": CommandEntry("iiot_platform.cli.browse:opcua", "Show the nodes of an OPC UA server."),
    "mqtt": CommandEntry(
        "iiot_platform.cli.browse:mqtt", "Show the topics that are heard at a broker."
    ),
    "rerun": CommandEntry(
        "iiot_platform.cli.rerun:rerun", "Compute hours again from the log, and say what changed."
    ),
    "sink": CommandEntry(
        "iiot_platform.cli.sink:sink", "Show, list refusals of, and fill anew the database."
    ),
    "late": CommandEntry("iiot_platform.cli.late:late", "List rows that came late."),
    "simulate": CommandEntry(
        "iiot_platform.cli.simulate:simulate", "Publish a simulated plant or replay a recording."
    ),
}
"""A new command is a module of this package and a line here.

The function may take `context: typer.Context`; `context.obj` is the environment, from which
`Settings.from_environ(context.obj)` makes the settings.
"""


def frame(called: str | None) -> typer.Typer:
    """The command line, with the command that is called imported and the others named alone."""
    app = typer.Typer(
        help="IIoT data platform: capture, compute, look.",
        no_args_is_help=True,
        add_completion=False,
        # plain help: the boxes cost as much start time as everything else together
        rich_markup_mode=None,
        # frames shown with their local values would show secrets
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # with a callback a single command stays a command
    app.callback()(_options)
    for name, entry in COMMANDS.items():
        if name == called:
            _add(app, name, _imported(entry))
        else:
            app.command(name, help=entry.summary)(_nothing)
    return app


def _nothing() -> None:
    pass


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        try:
            typer.echo(metadata.version(DISTRIBUTION))
        except metadata.PackageNotFoundError:
            typer.echo("not installed: run from a checkout")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _add(app: typer.Typer, name: str, command: Callable[..., Any] | typer.Typer) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def _imported(entry: CommandEntry) -> Callable[..., Any] | typer.Typer:
    module_name, _, name = entry.target.partition(":")
    command: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(module_name), name)
    return command


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrongly configured or called.

    `IIOT_DEBUG` shows the traceback of a failure.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    variables = os.environ if environ is None else environ
    called = next((argument for argument in given if not argument.startswith("-")), None)
    try:
        frame(called)(args=given, prog_name="iiot", obj=variables)
    except PlatformError as error:
        if variables.get("IIOT_DEBUG"):
            raise
        fail(error)


def fail(error: PlatformError) -> NoReturn:
    """Tell a failure on standard error and exit."""
    typer.secho(str(error), fg=typer.colors.RED, err=True)
    sys.exit(EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILURE)
