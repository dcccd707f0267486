"""`iiot grafana`: dashboards and alert rules of a plant, as Grafana is provisioned with them."""

from pathlib import Path
from typing import Annotated

import typer

from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.boards import localized
from iiot_platform.core.errors import ConfigError, StorageError


def grafana(
    context: typer.Context,
    boards: Annotated[
        Path | None,
        typer.Argument(help="The dashboards that are shipped, deploy/grafana/dashboards."),
    ] = None,
    *,
    dashboards: Annotated[
        Path | None, typer.Option(help="Folder that dashboards are written to.")
    ] = None,
    alerting: Annotated[
        Path | None, typer.Option(help="Folder that alert rules are written to.")
    ] = None,
    plant_path: Annotated[
        Path | None, typer.Option("--plant", help="The plant file; default IIOT_PLANT.")
    ] = None,
) -> None:
    """Write what Grafana is provisioned with: rules, addresses and time zone of this plant."""
    # yaml and the generator are of no use to the other commands
    from iiot_platform.alerts.grafana import write  # noqa: PLC0415 - as said

    if dashboards is None and alerting is None:
        raise ConfigError("give --dashboards, --alerting or both: the folders to be written")
    if (boards is None) != (dashboards is None):
        raise ConfigError(
            "dashboards are made of those that are shipped: give deploy/grafana/dashboards and"
            " --dashboards together"
        )
    settings = Settings.from_environ(context.obj)
    plant = load_plant(plant_path or settings.plant_path, context.obj)
    if boards is not None and dashboards is not None:
        for path in _write_dashboards(boards, dashboards, plant, settings):
            typer.echo(str(path))
    if alerting is not None:
        for path in write(alerting, plant):
            typer.echo(str(path))


def _write_dashboards(boards: Path, out: Path, plant: Plant, settings: Settings) -> list[Path]:
    shipped = sorted(boards.glob("*.json"))
    if not shipped:
        raise ConfigError(f"'{boards}' has no dashboards; give deploy/grafana/dashboards")
    # where the plant file says nothing: that of whoever looks
    zone = plant.timezone if "timezone" in plant.model_fields_set else ""
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in shipped:
            text = path.read_text(encoding="utf-8")
            text = localized(text, dagster_url=settings.dagster_url, timezone=zone)
            (out / path.name).write_text(text, encoding="utf-8")
            written.append(out / path.name)
    except OSError as error:
        raise StorageError(f"'{out}' can not be written: {error.strerror}") from error
    return written
