"""`iiot demo`: the whole platform in one terminal."""

import json
from pathlib import Path
from typing import Annotated

import typer

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.demo.display import Display
from iiot_platform.demo.installation import DemoInstallation, DemoOptions
from iiot_platform.demo.ports import PortClaims
from iiot_platform.demo.supervisor import Supervisor


def demo(
    context: typer.Context,
    *,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Run so long once all is ready, then prove that nothing is lost."),
    ] = None,
    history: Annotated[
        float, typer.Option(min=0, help="How many seconds back the simulated plant begins.")
    ] = 3_600.0,
    scenario: Annotated[
        Path | None, typer.Option(help="Scenario of the simulator; default a plant of two lines.")
    ] = None,
) -> None:
    """Run broker, buffer, simulator and Dagster until Ctrl-C; a next start goes on from there.

    State lies in IIOT_HOME (default ./var). With --seconds the last line is a JSON object with
    what was measured, and the exit code is not 0 where a message was lost or a table is empty.
    """
    options = DemoOptions(seconds=seconds, history_s=history, scenario=scenario)
    with PortClaims() as claims:
        installation = DemoInstallation.prepare(context.obj, options, claims)
        with Display() as display:
            outcome = Supervisor(installation, display).run()
            if outcome is None:
                display.say(f"stopped; the tables stay in {installation.settings.home.tables}")
    if outcome is not None:
        typer.echo(json.dumps(outcome.as_json(), ensure_ascii=False))
    if seconds is not None and (outcome is None or outcome.problems):
        raise typer.Exit(EXIT_FAILURE)
