"""`iiot grafana`: dashboards and alert rules of a plant, as Grafana is provisioned with them."""

from pathlib import Path
from typing import Annotated

import typer

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.boards import localized
from iiot_platform.core.errors import ConfigError, StorageError


def grafana(
    context: typer.Context,
    boards: Annotated[
        Path, typer.Argument(help="The dashboards that are shipped, deploy/grafana/dashboards.")
    ],
    *,
    dashboards: Annotated[Path, typer.Option(help="Folder that dashboards are written to.")],
    alerting: Annotated[Path, typer.Option(help="Folder that alert rules are written to.")],
    plant_path: Annotated[
        Path | None, typer.Option("--plant", help="The plant file; default IIOT_PLANT.")
    ] = None,
) -> None:
    """Write what Grafana is provisioned with: rules, addresses and time zone of this plant."""
    # yaml and the generator are of no use to the other commands
    from iiot_platform.alerts.grafana import write  # noqa: PLC0415 - as said

    settings = Settings.from_environ(context.obj)
    plant = load_plant(plant_path or settings.plant_path, context.obj)
    shipped = sorted(boards.glob("*.json"))
    if not shipped:
        raise ConfigError(f"'{boards}' has no dashboards; give deploy/grafana/dashboards")
    # where the plant file says nothing: that of whoever looks
    zone = plant.timezone if "timezone" in plant.model_fields_set else ""
    try:
        dashboards.mkdir(parents=True, exist_ok=True)
        for path in shipped:
            text = localized(
                path.read_text(encoding="utf-8"),
                dagster_url=settings.dagster_url,
                timezone=zone,
            )
            (dashboards / path.name).write_text(text, encoding="utf-8")
            typer.echo(str(dashboards / path.name))
    except OSError as error:
        raise StorageError(f"'{dashboards}' can not be written: {error.strerror}") from error
    for path in write(alerting, plant):
        typer.echo(str(path))
