"""The databases behind the tables as commands work on them, and which of them are meant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import PG_SINK_URL, Settings, SinkSettings
from iiot_platform.core.errors import ConfigError
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.outbox import LedgerOutbox, sinks_of
from iiot_platform.orchestration.delivery import SinkDelivery, delivery_to

Lines = Annotated[
    list[str] | None, typer.Option("--line", help="A line; may be repeated. Default: all.")
]
Chosen = Annotated[
    list[str] | None,
    typer.Option("--sink", help="A database, influxdb or postgresql. Default: all."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class NoDatabaseError(ConfigError):
    """There is no database to speak of."""

    def __init__(self) -> None:
        super().__init__(
            f"no database is configured; set INFLUX_URL (and INFLUX_TOKEN), or {PG_SINK_URL}"
        )


class UnknownSinkError(ConfigError):
    """A database that is not configured."""

    def __init__(self, name: str, known: Iterable[str], *, left: Iterable[str]) -> None:
        gone = (
            "it is configured no longer; 'iiot sink drop' forgets what is left of it"
            if name in left
            else f"configured are: {', '.join(known)}"
        )
        super().__init__(f"sink '{name}' is not configured; {gone}")


@dataclass(frozen=True)
class Database:
    """One database, and what it has not been given."""

    name: str
    settings: SinkSettings
    outbox: LedgerOutbox
    delivery: SinkDelivery


@dataclass(frozen=True)
class Databases:
    """The databases of one installation, and what they are filled from."""

    plant: Plant
    engine: Engine
    databases: Mapping[str, Database]

    @property
    def left(self) -> list[str]:
        """Names of databases that are configured no longer, and have a backlog or a history."""
        return [name for name in sinks_of(self.engine.ledger) if name not in self.databases]

    def chosen(self, names: Sequence[str] | None) -> list[Database]:
        """The databases of these names; all without any.

        Raises:
            ConfigError: one is not configured, or none is.
        """
        for name in names or ():
            if name not in self.databases:
                raise UnknownSinkError(name, self.databases, left=self.left)
        if not self.databases:
            raise NoDatabaseError
        return [self.databases[name] for name in dict.fromkeys(names or self.databases)]

    def lines(self, chosen: Sequence[str] | None) -> list[str]:
        """The lines of these names; all without any."""
        if not chosen:
            return list(self.plant.line_names)
        return [self.plant.line(name).name for name in chosen]


@contextmanager
def opened(context: typer.Context) -> Iterator[Databases]:
    """The databases of the installation that the environment names."""
    installed = Settings.from_environ(context.obj)
    plant = load_plant(installed.plant_path, context.obj)
    with closing(Engine(installed.home, plant, sinks=installed.sinks)) as engine:
        databases = {
            name: Database(
                name,
                settings,
                LedgerOutbox(engine.ledger, engine.store, name),
                delivery_to(name, settings)(engine),
            )
            for name, settings in installed.sinks.items()
        }
        yield Databases(plant, engine, databases)
