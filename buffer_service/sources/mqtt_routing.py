"""Which line a topic belongs to."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_LIMIT: Final = 100_000
SHARED: Final = "$share/"


def prefix_of(topic_filter: str) -> str:
    """What the topics start with that a filter `[$share/<group>/]<prefix>#` brings.

    Of a filter without `#` it is the whole topic, a `/` behind it; `+` is any level.
    """
    if topic_filter.startswith(SHARED):
        topic_filter = topic_filter.removeprefix(SHARED).partition("/")[2]
    return topic_filter[:-1] if topic_filter.endswith("#") else f"{topic_filter}/"


class Routing(dict[bytes, tuple[str, str | None]]):
    """A topic's bytes to its text and its stream (None: no line takes it), found when first asked.

    It never changes what it says; other lines are another object, so that no thread can mix two.

    Args:
        streams: topic prefix to stream.
        filters: topic filters to subscribe.
        retired: topic prefix to stream of lines that have left: what the broker still holds of
            them is theirs, unless another line takes it.
    """

    def __init__(
        self,
        streams: Mapping[str, str],
        filters: Sequence[str],
        retired: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.streams = dict(streams)
        self.retired = dict(retired or {})
        self.filters = tuple(filters)
        self._prefixes = (*_longest_first(streams), *_longest_first(self.retired))

    def successor(self, streams: Mapping[str, str], filters: Sequence[str]) -> "Routing":
        """The routing of another plant; lines that leave with it are retired."""
        return Routing(streams, filters, self.retired | self.streams)

    def subscriptions(self) -> dict[str, str]:
        """The filters with the stream that each brings; empty where it is none alone."""
        return {each: self.streams.get(prefix_of(each), "") for each in self.filters}

    def same_as(self, other: "Routing") -> bool:
        """True where both bring the same lines under the same filters."""
        return self.streams == other.streams and self.filters == other.filters

    def __missing__(self, topic_bytes: bytes) -> tuple[str, str | None]:
        """The longest prefix counts.

        A line's own level belongs to it: `line1/#` brings `line1` too.
        """
        try:
            topic = topic_bytes.decode()
        except UnicodeDecodeError:
            return repr(topic_bytes), None  # brokers refuse it: nothing that a line could name
        level = f"{topic}/"
        stream = next((s for starts, s in self._prefixes if starts(level)), None)
        if len(self) >= _LIMIT:
            self.clear()
        self[topic_bytes] = topic, stream
        return topic, stream


def _longest_first(streams: Mapping[str, str]) -> list[tuple[Callable[[str], object], str]]:
    """What tells a prefix's topics, and its stream; the longest prefix first."""
    longest = sorted(streams.items(), key=lambda item: -len(item[0]))
    return [(_starts(prefix), stream) for prefix, stream in longest]


def _starts(prefix: str) -> Callable[[str], object]:
    return re.compile("[^/]*".join(map(re.escape, prefix.split("+")))).match
