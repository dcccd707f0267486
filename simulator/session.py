"""Plays a scenario: its history as fast as the broker takes it, then live, without a seam."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from simulator.broker_link import BrokerAddress
from simulator.plant import Chunk, SimulatedPlant
from simulator.publisher import Publisher
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from simulator.stats import LineState, ScenarioState, SimulatorFiles, Stats, now_ms

_SHORTEST_CHUNK_MS: Final = 2_000
_LONGEST_CHUNK_MS: Final = 60_000


class RunOptions(BaseModel):
    """How a scenario is played.

    Attributes:
        scenario: a scenario file.
        home: counts, labels and state go below `<home>/simulator`.
        history_s: how far back it begins; also how far back it goes on after a pause.
        seconds: length of the live part; None: until it is stopped.
        lines: the lines that are played; empty: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: Path = DEFAULT_SCENARIO
    home: Path = Path("var")
    broker: BrokerAddress = BrokerAddress()
    history_s: Annotated[float, Field(ge=0)] = 0.0
    seconds: Annotated[float, Field(ge=0)] | None = None
    lines: tuple[str, ...] = ()


def run(
    options: RunOptions,
    *,
    stop: Event | None = None,
    on_progress: Callable[[Stats], None] | None = None,
) -> Stats:
    """Play a scenario until `stop` is set or `options.seconds` of live time are over.

    Raises:
        ScenarioError: the scenario can not be played.
        SimulatorError: the home can not be used, or the broker refuses the credentials.
    """
    scenario = load_scenario(options.scenario)
    played = scenario.only(options.lines) if options.lines else scenario
    files = SimulatorFiles(options.home)
    states = files.read_state()
    started_ms = now_ms()
    known = states.get(scenario.name, ScenarioState(started_ms, {}))
    earliest_ms = started_ms - round(1000 * options.history_s)
    from_ms = {
        line: max(known.lines[line].continue_from_ms, earliest_ms)
        if line in known.lines
        else earliest_ms
        for line in played.lines
    }
    resumed = all(
        line in known.lines and known.lines[line].continue_from_ms >= earliest_ms
        for line in played.lines
    )
    stats = Stats(
        source=f"scenario {scenario.name}",
        position_ms=min(from_ms.values()),
        started_ms=started_ms,
    )

    def progress(current: Stats) -> None:
        reached = {
            line: LineState(max(current.position_ms, begin)) for line, begin in from_ms.items()
        }
        files.write_state(
            {**states, scenario.name: ScenarioState(known.anchor_ms, {**known.lines, **reached})}
        )
        if on_progress is not None:
            on_progress(current)

    plant = SimulatedPlant(played, anchor_ms=known.anchor_ms)
    with Publisher(
        options.broker, files=files, stats=stats, stop=stop or Event(), on_progress=progress
    ) as publisher:
        publisher.play(
            _chunks(plant, from_ms, ongoing=not resumed), paced=True, until_live_s=options.seconds
        )
    return stats


def _chunks(plant: SimulatedPlant, from_ms: Mapping[str, int], *, ongoing: bool) -> Iterator[Chunk]:
    """The plant from where it begins, for ever; long chunks while behind, short ones live."""
    start_ms = min(from_ms.values())
    while True:
        behind_ms = now_ms() - start_ms
        end_ms = start_ms + min(max(behind_ms, _SHORTEST_CHUNK_MS), _LONGEST_CHUNK_MS)
        yield plant.chunk(start_ms, end_ms, from_ms=from_ms, ongoing=ongoing)
        start_ms, ongoing = end_ms, False
