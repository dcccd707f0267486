"""What a session has subscribed at the broker, and for which lines: it outlives them.

A broker names nobody the subscriptions of a session and keeps them while the client is away, so
that a line that left the plant file meanwhile would be sent for ever. They are remembered here:
noted before they are asked for, and forgotten once the broker has confirmed that they are gone,
so that what is remembered is never less than what the broker has.

Beside them stands which lines have brought messages of QoS 0: no session keeps these.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from iiot_platform.core.names import path_segment

logger = logging.getLogger(__name__)


def subscriptions_file(folder: Path, source: str) -> Path:
    """Where the subscriptions of a source are remembered, below the capture folder."""
    return folder / f"subscriptions-{path_segment(source)}.json"


class Subscriptions:
    """The topic filters of one session, each with its stream; used by one thread.

    A file that can not be read or written costs no message of a line of the plant: at worst a line
    that left it stays subscribed, and what comes of it is counted as unmatched.

    Args:
        path: the file that remembers them; None: they are forgotten with this object.
        session: names the session; what the file says of another one is void.
        expiry_s: how long the broker keeps it.
    """

    def __init__(self, path: Path | None, session: str, expiry_s: int = 0) -> None:
        self._path = path
        self._session = session
        self._expiry_s = expiry_s
        self._is_noted = False
        self._filters: dict[str, str] = {}
        self._qos0: frozenset[str] = frozenset()
        self._read()

    @property
    def filters(self) -> Mapping[str, str]:
        """What the broker may have for the session."""
        return self._filters

    @property
    def qos0(self) -> frozenset[str]:
        """Streams of which messages of QoS 0 have come."""
        return self._qos0

    def add(self, filters: Mapping[str, str]) -> None:
        """These are about to be subscribed."""
        self._keep({**self._filters, **filters}, self._qos0)

    def discard(self, filters: Iterable[str]) -> None:
        """The broker has confirmed that these are gone."""
        gone = set(filters)
        kept = {each: stream for each, stream in self._filters.items() if each not in gone}
        self._keep(kept, self._qos0)

    def clear(self) -> None:
        """The broker knows nothing of an earlier session."""
        self._keep({}, frozenset())

    def note_qos0(self, streams: Iterable[str]) -> None:
        """Messages of QoS 0 have come of these, and of no others."""
        self._keep(self._filters, frozenset(streams))

    def _read(self) -> None:
        if self._path is None:
            return
        # else the first start, or a file that somebody has spoilt
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["session"] == self._session:
                filters = kept["filters"].items()
                self._filters = {str(each): str(stream) for each, stream in filters}
                self._qos0 = frozenset(map(str, kept.get("qos0", ())))
                self._is_noted = kept["expiry_s"] == self._expiry_s

    def _keep(self, filters: dict[str, str], qos0: frozenset[str]) -> None:
        if self._is_noted and (filters, qos0) == (self._filters, self._qos0):
            return
        self._filters, self._qos0, self._is_noted = filters, qos0, True
        if self._path is None:
            return
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        kept = {
            "session": self._session,
            "expiry_s": self._expiry_s,
            "filters": filters,
            "qos0": sorted(qos0),
        }
        text = json.dumps(kept, indent=1)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            logger.warning("%s: can not be written: %s", self._path, error.strerror or error)
