"""Names that come from the network, made safe for paths and keys.

A name is percent-encoded when it becomes a path segment, so that two names never share a
segment and `..`, separators and control characters can not appear in one.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

_SAFE = "-_"
_MAX_SEGMENT = 120


def path_segment(name: str) -> str:
    """A file-system-safe, reversible and unique segment for any name.

    Letters, digits, `-` and `_` stay; the rest is percent-encoded (a dot too, so that no
    segment is `.` or `..`). A segment that grows too long for file systems is cut and ends
    in a hash of the whole name.
    """
    segment = quote(name, safe=_SAFE).replace(".", "%2E").replace("~", "%7E") or "%00"
    if len(segment) <= _MAX_SEGMENT:
        return segment
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return f"{segment[: _MAX_SEGMENT - 26]}%~{digest}"


@lru_cache(maxsize=65_536)
def _quoted(part: str) -> str:
    return quote(part, safe=" ")


class SeriesKey(NamedTuple):
    """What names one series of a line: its order and state are its own.

    Attributes:
        kind: one of `schema.KINDS`.
        machine: machine level of the topic.
        name: device, or `<device>.<Field>` of a generic payload.
        operation: a valve's time type; empty for every other kind.
    """

    kind: str
    machine: str
    name: str
    operation: str = ""

    @property
    def text(self) -> str:
        """The key as one string, reversible by `parse`."""
        return "/".join(map(_quoted, self))

    @classmethod
    def parse(cls, text: str) -> "SeriesKey":
        """The key that `text` names.

        Raises:
            ValueError: `text` has not four parts.
        """
        parts = text.split("/")
        if len(parts) != len(cls._fields):
            raise ValueError(f"'{text}' is not a series key: kind/machine/name/operation")
        return cls(*(unquote(part) for part in parts))
