"""The state of alerts and what is to be told, in one SQLite file: written together or not at all.

What is told stays in the outbox until its receiver has taken it. A process that dies in between
tells it again under the same id.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from iiot_platform.alerts.evaluation import LineState
from iiot_platform.core.errors import StorageError

MQTT: Final = "mqtt"
CLEAR: Final = "mqtt-clear"
WEBHOOK: Final = "webhook"
TABLES_SCOPE: Final = "tables"
STATUS_SCOPE: Final = "status"
_VERSION: Final = 1
_BUSY_S: Final = 20.0
_DDL: Final = """
CREATE TABLE IF NOT EXISTS states (
    line  TEXT NOT NULL,
    scope TEXT NOT NULL,
    body  BLOB NOT NULL,
    PRIMARY KEY (line, scope)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    target   TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    topic    TEXT    NOT NULL,
    body     BLOB    NOT NULL,
    resolved INTEGER NOT NULL,
    due_ms   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    refused  TEXT
);
CREATE INDEX IF NOT EXISTS outbox_target ON outbox (target, refused, seq);
"""
_STATES: Final = "SELECT line, scope, body FROM states ORDER BY line, scope"
_INSERT: Final = (
    "INSERT INTO outbox (target, id, topic, body, resolved, due_ms) VALUES (?, ?, ?, ?, ?, ?)"
)


class Outgoing(NamedTuple):
    """A message for a receiver.

    Attributes:
        target: MQTT or WEBHOOK.
        id: names the message.
        topic: where it goes, over MQTT.
        body: JSON.
        resolved: True where it says that an alert is over.
    """

    target: str
    id: str
    topic: str
    body: bytes
    resolved: bool


class Waiting(NamedTuple):
    """A message in the outbox."""

    seq: int
    message: Outgoing
    attempts: int


class AlertStore:
    """One connection to the file; use it in one thread.

    Args:
        path: the file, made where it is missing.

    Raises:
        StorageError: it can not be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_DDL)
            self._connection.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.Error as error:
            raise _failed(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def states(self) -> dict[tuple[str, str], LineState]:
        """The state of every line, by (line, scope)."""
        return _decoded(self._path, self._query(_STATES))

    def save(
        self, line: str, scope: str, state: LineState, messages: Sequence[Outgoing], now_ms: int
    ) -> None:
        """Writes a state with all that is to be told of the step to it."""
        rows = [(m.target, m.id, m.topic, m.body, m.resolved, now_ms) for m in messages]
        body = msgspec.json.encode(state)
        self._write(
            ("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", [(line, scope, body)]),
            (
                "DELETE FROM outbox WHERE target = ? AND topic = ?",
                [(CLEAR, m.topic) for m in messages if m.target == MQTT],
            ),
            (_INSERT, rows),
        )

    def forget(self, line: str) -> None:
        """Removes the state of a line that the plant no longer has."""
        self._write(("DELETE FROM states WHERE line = ?", [(line,)]))

    def next(self, target: str, now_ms: int) -> Waiting | None:
        """The oldest message of a target that is due."""
        rows = self._query(
            "SELECT seq, target, id, topic, body, resolved, attempts FROM outbox"
            " WHERE target = ? AND refused IS NULL AND due_ms <= ? ORDER BY seq LIMIT 1",
            (target, now_ms),
        )
        for seq, name, ident, topic, body, resolved, attempts in rows:
            return Waiting(seq, Outgoing(name, ident, topic, body, bool(resolved)), attempts)
        return None

    def delivered(self, waiting: Waiting, *, clear_at_ms: int | None = None) -> None:
        """Takes a message out; its retained topic is to be cleared later, where a time is given.

        A topic that is spoken of again meanwhile is not cleared.
        """
        cleared = (
            "INSERT INTO outbox (target, id, topic, body, resolved, due_ms)"
            " SELECT ?, ?, ?, x'', 1, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM outbox WHERE target = ? AND topic = ? AND seq > ?)"
        )
        message = waiting.message
        row = (CLEAR, message.id, message.topic, clear_at_ms, MQTT, message.topic, waiting.seq)
        self._write(
            ("DELETE FROM outbox WHERE seq = ?", [(waiting.seq,)]),
            (cleared, [] if clear_at_ms is None else [row]),
        )

    def failed(self, waiting: Waiting, *, refused: str | None = None) -> None:
        """Counts an attempt; with a reason the message is set aside and not tried again."""
        self._write(
            (
                "UPDATE outbox SET attempts = attempts + 1, refused = ? WHERE seq = ?",
                [(refused, waiting.seq)],
            )
        )

    def waiting(self) -> dict[str, int]:
        """How many messages wait, by target."""
        rows = self._query(
            "SELECT target, count(*) FROM outbox WHERE refused IS NULL GROUP BY target"
        )
        return dict(rows)

    def refused(self) -> int:
        """How many messages were set aside."""
        return int(self._query("SELECT count(*) FROM outbox WHERE refused IS NOT NULL")[0][0])

    def drop_targets(self, kept: Iterable[str]) -> int:
        """Removes what waits for targets that are no longer there; returns how many."""
        marks = list(kept)
        where = f"target NOT IN ({', '.join('?' * len(marks))})"
        count = self._query(f"SELECT count(*) FROM outbox WHERE {where}", tuple(marks))[0][0]
        self._write((f"DELETE FROM outbox WHERE {where}", [tuple(marks)]))
        return int(count)

    def _query(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            with closing(self._connection.execute(sql, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise _failed(self._path, error) from error

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """One transaction."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, rows in statements:
                    connection.executemany(sql, rows)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _failed(self._path, error) from error


def read_states(path: Path) -> dict[tuple[str, str], LineState]:
    """The state of every line, without a lock or a write; empty where there is no file.

    Raises:
        StorageError: the file can not be read.
    """
    if not path.exists():
        return {}
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S)) as connection:
            rows = connection.execute(_STATES).fetchall()
    except sqlite3.Error as error:
        raise _failed(path, error) from error
    return _decoded(path, rows)


def _decoded(path: Path, rows: Iterable[Any]) -> dict[tuple[str, str], LineState]:
    try:
        return {
            (line, scope): msgspec.json.decode(body, type=LineState) for line, scope, body in rows
        }
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"'{path}' holds a state that can not be understood: {error}; remove the file to"
            " begin anew, what is to be told goes with it"
        ) from error


def _failed(path: Path, error: sqlite3.Error) -> StorageError:
    return StorageError(f"'{path}' can not be used: {error}")
