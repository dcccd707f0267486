"""What each injected fault did, counted: one table for all of them."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table

ALL: Final = bool(os.environ.get("IIOT_TEST_ALL_FAULTS"))
"""The whole suite (`make faults`) instead of the part that `make test` runs."""
PROPERTY: Final = "fault"


@dataclass(frozen=True)
class Outcome:
    """What a fault did.

    Attributes:
        fault: its name.
        injected: how many times.
        messages_in: distinct messages that the broker acknowledged or the server showed.
        rows_out: of those, how many distinct ones are in the log.
        duplicated: rows beyond the first of a message.
        recovered_s: from the end of the (last) fault until everything was in the log.
        noticed: how a loss was told; empty where nothing may be lost.
    """

    fault: str
    injected: int
    messages_in: int
    rows_out: int
    duplicated: int
    recovered_s: float | None = None
    noticed: str = ""

    @property
    def lost(self) -> int:
        return self.messages_in - self.rows_out

    @classmethod
    def of(
        cls, fault: str, injected: int, sent: Iterable[Any], stored: Iterable[Any], **more: Any
    ) -> Self:
        """Counts what was stored of what was sent; what nobody acknowledged may be there or not."""
        wanted, found = set(sent), Counter(stored)
        return cls(
            fault,
            injected,
            len(wanted),
            sum(one in found for one in wanted),
            found.total() - len(found),
            **more,
        )

    def must_be_whole(self) -> None:
        assert (self.lost, self.duplicated) == (0, 0), self
        assert self.messages_in > 0, self


Tell = Callable[[Outcome], None]


def outcomes(properties: Iterable[Iterable[tuple[str, Any]]]) -> list[Outcome]:
    """The outcomes among the properties of tests."""
    return [Outcome(**value) for some in properties for name, value in some if name == PROPERTY]


def as_property(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome)


def write_table(found: Iterable[Outcome], failed: int, path: Path) -> None:
    """Prints the table, and writes it as JSON beside."""
    rows = sorted(found, key=lambda one: one.fault)
    table = Table(title="faults", title_justify="left")
    for name in ("fault", "times", "messages in", "rows out", "lost", "duplicated", "recovered s"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    table.add_column("told as", overflow="fold")
    for row in rows:
        table.add_row(
            row.fault,
            f"{row.injected:,}",
            f"{row.messages_in:,}",
            f"{row.rows_out:,}",
            f"[red]{row.lost:,}[/]" if row.lost else "0",
            f"[red]{row.duplicated:,}[/]" if row.duplicated else "0",
            "" if row.recovered_s is None else f"{row.recovered_s:.1f}",
            row.noticed,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    body = [{**asdict(row), "lost": row.lost} for row in rows]
    path.write_text(json.dumps({"failed_tests": failed, "faults": body}, indent=1) + "\n")
    console = Console(width=max(120, Console().width))
    console.print(table)
    console.print(f"{sum(row.injected for row in rows):,} faults; as JSON: {path}")
