"""What was published, for people, and what must survive a restart; written atomically."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from simulator.errors import SimulatorError


def now_ms() -> int:
    """The current time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Stats:
    """Counts of one run.

    Attributes:
        published: messages that the broker acknowledged.
        enqueued: messages that were handed to the connection.
        refused: messages that the broker refused (an access rule, for example).
        history: those of `published` that were sent while catching up.
        live: those of `published` that were sent in real time.
        live_since_ms: true time of the first live message; None before.
        position_ms: everything due before this was acknowledged; a next run begins here.
        skipped: cells of a recording that hold no value.
        shown_per_line: OPC UA: distinct values that a subscriber gets, those that equal the one
            before left out.
        subscribers: OPC UA: clients that have subscribed to the nodes.
    """

    source: str = ""
    phase: Literal["connecting", "history", "live", "replay", "stopped"] = "connecting"
    published: int = 0
    enqueued: int = 0
    refused: int = 0
    outstanding: int = 0
    history: int = 0
    live: int = 0
    labels: int = 0
    skipped: int = 0
    published_per_line: dict[str, int] = field(default_factory=dict)
    shown_per_line: dict[str, int] = field(default_factory=dict)
    subscribers: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    live_since_ms: int | None = None
    position_ms: int = 0
    rate_per_s: float = 0.0
    connections: int = 0
    started_ms: int = field(default_factory=now_ms)
    updated_ms: int = 0

    def encoded(self) -> bytes:
        """The counts as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)


class LineState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a line of a scenario goes on: everything due before it was acknowledged."""

    continue_from_ms: int


class ScenarioState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a scenario remembers: the moment `start_s` counts from, and its lines."""

    anchor_ms: int
    lines: dict[str, LineState]


class SimulatorFiles:
    """The files below `<home>/simulator`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "simulator"
        self.stats = self.folder / "stats.json"
        self.state = self.folder / "state.json"
        self.labels = self.folder / "labels.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SimulatorError(f"{self.folder} can not be made: {error}") from error

    def read_state(self) -> dict[str, ScenarioState]:
        """The state of every scenario that was played here.

        Raises:
            SimulatorError: the file is there and is no state.
        """
        try:
            return msgspec.json.decode(self.state.read_bytes(), type=dict[str, ScenarioState])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise SimulatorError(
                f"{self.state} can not be read: {error}; remove it to start anew"
            ) from error

    def write_state(self, state: dict[str, ScenarioState]) -> None:
        """Replace the state."""
        replace(self.state, msgspec.json.encode(state))

    def write_stats(self, stats: Stats) -> None:
        """Replace the counts."""
        replace(self.stats, stats.encoded())


def replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Raises:
        SimulatorError: it can not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise SimulatorError(f"{path} can not be written: {error}") from error
