"""Which line a topic belongs to."""

from collections.abc import Mapping, Sequence
from typing import Final

_LIMIT: Final = 100_000


class Routing(dict[bytes, tuple[str, str | None]]):
    """A topic's bytes to its text and its stream (None: no line takes it), found when first asked.

    It never changes what it says; other lines are another object, so that no thread can mix two.

    Args:
        streams: topic prefix to stream.
        filters: topic filters to subscribe.
    """

    def __init__(self, streams: Mapping[str, str], filters: Sequence[str]) -> None:
        super().__init__()
        self.prefixes = sorted(streams.items(), key=lambda item: (-len(item[0]), item))
        self.filters = tuple(filters)

    def same_as(self, other: "Routing") -> bool:
        """True where both say the same of every topic, and ask for the same."""
        return self.prefixes == other.prefixes and self.filters == other.filters

    def __missing__(self, topic_bytes: bytes) -> tuple[str, str | None]:
        """The longest prefix counts.

        A line's own level belongs to it: `line1/#` brings `line1` too.
        """
        try:
            topic = topic_bytes.decode()
        except UnicodeDecodeError:
            return repr(topic_bytes), None  # brokers refuse it: nothing that a line could name
        level = f"{topic}/"
        stream = next((s for prefix, s in self.prefixes if level.startswith(prefix)), None)
        if len(self) >= _LIMIT:
            self.clear()
        self[topic_bytes] = topic, stream
        return topic, stream
