"""`iiot capture`: run the buffer service."""

import typer

from buffer_service.__main__ import serve
from buffer_service.plant_watch import PlantWatch
from buffer_service.systemd import Notifier
from iiot_platform.config.settings import Settings


def capture(context: typer.Context) -> None:
    """Capture the plant's messages into the log until Ctrl-C or SIGTERM."""
    settings = Settings.from_environ(context.obj)
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
