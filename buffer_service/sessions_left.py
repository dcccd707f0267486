"""Sessions that the buffer had at a broker and will not come back to: told until they expire.

A broker goes on collecting for a session whose source was removed, or has another client id. They
are not ended from here: that takes a connection under the old client id, which by now may be
another buffer's, because a source moved there or because two had one and this one was given its
own. The other would be thrown out and lose what waits for it. Nobody but the operator knows.
"""

import contextlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.core.clock import MS_PER_S, from_ms, now_ms

logger = logging.getLogger(__name__)

_FILE: Final = "sessions-left.json"
_FOR_EVER: Final = 2**32 - 1


class Session(NamedTuple):
    """A session at a broker.

    Attributes:
        client_id: names it.
        host: of the broker.
        port: of the broker.
        expiry_s: how long the broker keeps it behind its last connection.
    """

    client_id: str
    host: str
    port: int
    expiry_s: int

    @property
    def text(self) -> str:
        """As files name it."""
        return f"{self.client_id}@{self.host}:{self.port}"


def session_of(settings: MqttSource) -> Session:
    """The session of a source."""
    return Session(settings.client_id, settings.host, settings.port, settings.session_expiry_s)


class SessionsLeft:
    """Tells, and remembers over restarts, which sessions were left; used by one thread.

    Args:
        folder: the capture folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = self._read()

    def begin(self, plant: Plant) -> None:
        """The buffer starts with this plant: tell each session that it had and has no more."""
        had, files = [], {}
        for path in sorted(self._folder.glob("subscriptions-*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                kept = json.loads(path.read_text(encoding="utf-8"))
                client_id, _, place = kept["session"].rpartition("@")
                host, _, port = place.rpartition(":")
                session = Session(client_id, host, int(port), int(kept["expiry_s"]))
                had.append(session)
                files[session.text] = path
        known = {session.text for session in self._left}
        self._leave(plant, had)
        for session, left_ms in list(self._left.items()):
            if _is_over(session, left_ms):
                del self._left[session]
                if session.text in files:
                    files[session.text].unlink(missing_ok=True)
            elif session.text in known:
                _tell(session, left_ms)
        self._write()

    def follow(self, plant: Plant, had: Iterable[MqttSource]) -> None:
        """The plant is another; these sources had sessions."""
        self._leave(plant, map(session_of, had))
        self._write()

    def _leave(self, plant: Plant, had: Iterable[Session]) -> None:
        brokers = (source for source in plant.sources if isinstance(source, MqttSource))
        in_use = {session_of(source).text for source in brokers}
        self._left = {one: since for one, since in self._left.items() if one.text not in in_use}
        known = {session.text for session in self._left}
        for session in had:
            if session.text not in in_use | known and session.expiry_s:
                self._left[session] = now_ms()
                _tell(session, self._left[session])

    def _read(self) -> dict[Session, int]:
        try:
            kept = json.loads((self._folder / _FILE).read_text(encoding="utf-8"))
            return {
                Session(str(c), str(h), int(p), int(e)): int(left_ms)
                for c, h, p, e, left_ms in kept
            }
        except (OSError, ValueError, TypeError):
            return {}  # none was left, or a file that somebody has spoilt

    def _write(self) -> None:
        path = self._folder / _FILE
        kept = [[*session, left_ms] for session, left_ms in self._left.items()]
        temporary = path.with_name(f"{_FILE}.tmp")
        try:
            if not kept:
                path.unlink(missing_ok=True)
                return
            temporary.write_text(json.dumps(kept), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            logger.warning("%s: can not be written: %s", path, error.strerror or error)


def _is_over(session: Session, left_ms: int) -> bool:
    return session.expiry_s != _FOR_EVER and now_ms() > left_ms + session.expiry_s * MS_PER_S


def _tell(session: Session, left_ms: int) -> None:
    until = "for ever"
    if session.expiry_s != _FOR_EVER:
        until = f"until {from_ms(left_ms + session.expiry_s * MS_PER_S):%Y-%m-%d %H:%M} UTC"
    logger.warning(
        "%s:%d goes on collecting for client id '%s', which no source has any more, %s"
        " (session_expiry_s). Unless another buffer has taken it over, end the session, and with"
        " it what waits there (how much, the broker does not say): mosquitto_sub -h %s -p %d -V 5"
        " -i %s -t none -E, with user and certificate of the source",
        session.host,
        session.port,
        session.client_id,
        until,
        session.host,
        session.port,
        session.client_id,
    )
