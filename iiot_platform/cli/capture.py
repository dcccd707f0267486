"""`iiot capture`: run the buffer service."""

import typer

from buffer_service.__main__ import serve
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings


def capture(context: typer.Context) -> None:
    """Capture the plant's messages into the log until Ctrl-C or SIGTERM."""
    settings = Settings.from_environ(context.obj)
    plant = load_plant(settings.plant_path, context.obj)
    raise typer.Exit(serve(settings.home, plant, metrics=settings.buffer_metrics))
