"""`iiot simulate`: publish a simulated plant, or replay a recording."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

import simulator
from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError, SourceError


def simulate(
    context: typer.Context,
    *,
    scenario: Annotated[
        Path | None, typer.Option(help="Scenario file; default a plant of two lines.")
    ] = None,
    history: Annotated[
        float, typer.Option(min=0, help="Begin so many seconds back, as fast as possible.")
    ] = 0.0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Length of the live part; default until Ctrl-C.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Replay a recording instead.")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Line of the recording.")] = None,
    machine: Annotated[str | None, typer.Option(help="Machine of the recording.")] = None,
    rate: Annotated[str, typer.Option(help="Speed of the replay: 1x, 20x, … or max.")] = "1x",
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="The recording begins now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Publish to the broker of the plant file: a simulated plant, or a CSV recording."""
    settings = Settings.from_environ(context.obj)
    plant = load_plant(settings.plant_path, context.obj)
    home = settings.home.root
    with _until_signal() as stop, _progress(quiet=as_json) as on_progress:
        try:
            if replay is None:
                chosen: dict[str, Any] = {} if scenario is None else {"scenario": scenario}
                played = simulator.RunOptions(
                    home=home,
                    broker=_broker(plant, None),
                    history_s=history,
                    seconds=seconds,
                    **chosen,
                )
                stats = simulator.run(played, stop=stop, on_progress=on_progress)
            else:
                if line is None or machine is None:
                    raise ConfigError("--replay needs --line and --machine: where the data belongs")
                recorded = simulator.ReplayOptions(
                    csv=replay,
                    line=line,
                    machine=machine,
                    rate=rate,
                    shift_to_now=shift_to_now,
                    home=home,
                    broker=_broker(plant, line),
                )
                stats = simulator.replay(recorded, stop=stop, on_progress=on_progress)
        except simulator.SimulatorError as error:
            raise SourceError(str(error)) from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
    typer.echo(stats.encoded().decode() if as_json else _sentence(stats))


def _broker(plant: Plant, line: str | None) -> simulator.BrokerAddress:
    """The broker that brings a line, or the plant's first."""
    known = line is not None and line in plant.line_names
    chosen = plant.source_of(line) if known and line else None
    brokers = [source for source in plant.sources if isinstance(source, MqttSource)]
    source = chosen if isinstance(chosen, MqttSource) else next(iter(brokers), None)
    if source is None:
        raise ConfigError("the plant file has no MQTT source to publish to; give it one")
    return simulator.BrokerAddress(
        host=source.host,
        port=source.port,
        username=source.username,
        password=source.password,
        tls_ca=None if source.tls is None else source.tls.ca_file,
    )


@contextmanager
def _until_signal() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set, so that what was sent is still acknowledged."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[simulator.Stats], None] | None]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    with Status("connecting", console=console) as status:
        yield lambda stats: status.update(_sentence(stats))


def _sentence(stats: simulator.Stats) -> str:
    return (
        f"{stats.source}, {stats.phase}: {stats.published:,} messages published,"
        f" {stats.rate_per_s:,.0f}/s, {stats.labels} faults"
    )
