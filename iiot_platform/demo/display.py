"""What the demo shows while it runs: one line that moves, and sentences that stay."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from iiot_platform.demo.progress import Published, Totals


class Display:
    """Writes to standard error; a moving line on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = Status("starting", console=self._console)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status.stop()

    def say(self, sentence: str) -> None:
        """A sentence that stays."""
        self._console.print(escape(sentence), soft_wrap=True)

    def show(self, text: str) -> None:
        """How it stands now."""
        if self._console.is_terminal:
            self._status.update(escape(text))
        else:
            self.say(text)


def sentence(phase: str, mqtt: Published, opcua: Published, totals: Totals) -> str:
    """The status line."""
    written = f" | OPC UA values {opcua.total:,} ({opcua.phase})" if opcua.expected else ""
    return (
        f"{phase} | published {mqtt.total:,} ({mqtt.phase}){written}"
        f" | captured {totals.captured:,} | computed {totals.consumed:,}"
        f" | batches {totals.batches:,} | anomalies {totals.anomalies:,}"
        f" | lag {totals.lag_rows:,} rows, {totals.lag_s:.1f} s"
    )
