"""`iiot capture`: run the buffer service."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from buffer_service.__main__ import serve
from buffer_service.systemd import Notifier
from iiot_platform.config.plant_watch import PlantWatch
from iiot_platform.config.settings import Settings


def capture(
    context: typer.Context,
    *,
    plant_path: Annotated[
        Path | None, typer.Option("--plant", help="The plant file; else IIOT_PLANT.")
    ] = None,
) -> None:
    """Capture the plant's messages into the log until Ctrl-C or SIGTERM."""
    settings = Settings.from_environ(context.obj)
    if plant_path is not None:
        settings = replace(settings, plant_path=plant_path)
    watch = PlantWatch(settings.plant_path, context.obj)
    plant = watch.load()
    raise typer.Exit(
        serve(
            settings.home,
            plant,
            metrics=settings.buffer_metrics,
            watch=watch,
            systemd=Notifier.from_environ(context.obj),
        )
    )
