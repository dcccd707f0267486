"""The redelivery tail: which messages the broker may send again though they are in the log.

A message that is committed but whose acknowledgement did not reach the broker comes again in
the same session, with DUP set and under the same packet id. The tail keeps (packet id, hash of
topic and payload) of the last deliveries, at least as many as the broker may have under way, in
the same transaction as their records. Only a delivery with DUP that is found here is dropped.
Deliveries of a wide window stay as long as that one wants it, also after a restart under a
narrower one: the broker may still send all of them again. Brokers may also have more under way
than the window allows (mosquitto 2.0.11 has), so the tail is no shorter than some commits.

A wrong drop would need a packet id that was used anew, for the same topic with the same payload
bytes, by a message that was lost between its first delivery and its commit. Within the tail ids
are not used anew, since brokers count them up to 65,535 per session; when a session starts anew
the tail is emptied before anything is subscribed.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Mapping
from typing import Final

from iiot_platform.core.capture_log import Record

_DDL: Final = """
CREATE TABLE IF NOT EXISTS redelivery_tail (
    id         INTEGER PRIMARY KEY,
    session    TEXT    NOT NULL,
    count      INTEGER NOT NULL,
    deliveries BLOB    NOT NULL,
    upto       INTEGER NOT NULL DEFAULT 0,
    keep       INTEGER NOT NULL DEFAULT 131070
);
CREATE INDEX IF NOT EXISTS redelivery_tail_session ON redelivery_tail (session, id);
"""

_COLUMNS: Final = "PRAGMA table_info (redelivery_tail)"
_ADD_UPTO: Final = "ALTER TABLE redelivery_tail ADD COLUMN upto INTEGER NOT NULL DEFAULT 0"
_ADD_KEEP: Final = "ALTER TABLE redelivery_tail ADD COLUMN keep INTEGER NOT NULL DEFAULT 131070"
"""For a tail from before windows could change; the widest window there is, twice."""

_COMMITS: Final = 4
_HASH_BYTES: Final = 8
_ENTRY: Final = struct.Struct(f"!H{_HASH_BYTES}s")

Fingerprints = Mapping[int, bytes]
"""Packet id to fingerprint, oldest delivery first."""


def fingerprint(record: Record) -> bytes:
    """A hash of topic and payload (8 bytes)."""
    # MQTT forbids NUL in a topic, so the border is clear.
    text = record.topic.encode() + b"\0" + record.payload
    return hashlib.blake2b(text, digest_size=_HASH_BYTES).digest()


def prepare(connection: sqlite3.Connection) -> None:
    """Make the table where there is none."""
    connection.executescript(_DDL)
    if "keep" not in {column for _, column, *_ in connection.execute(_COLUMNS)}:
        connection.execute(_ADD_UPTO)
        connection.execute(_ADD_KEEP)


def clear(connection: sqlite3.Connection, session: str) -> None:
    """Forget a session's deliveries."""
    connection.execute("DELETE FROM redelivery_tail WHERE session = ?", (session,))


def append(
    connection: sqlite3.Connection, session: str, deliveries: Fingerprints, *, keep: int
) -> None:
    """Add the deliveries of one commit and forget what is older than the last `keep`.

    What was added under a larger `keep` is forgotten when it is older than that many, what came in
    a large commit when it is older than some of its size.
    """
    blob = b"".join(map(_ENTRY.pack, deliveries.keys(), deliveries.values()))
    (before,) = connection.execute(
        "SELECT coalesce(max(upto), 0) FROM redelivery_tail WHERE session = ?", (session,)
    ).fetchone()
    count = len(deliveries)
    upto = before + count
    connection.execute(
        "INSERT INTO redelivery_tail (session, count, deliveries, upto, keep)"
        " VALUES (?, ?, ?, ?, ?)",
        (session, count, blob, upto, max(keep, _COMMITS * count)),
    )
    connection.execute(
        "DELETE FROM redelivery_tail WHERE session = ? AND upto + max(keep, ?) <= ?",
        (session, keep, upto),
    )


def load(connection: sqlite3.Connection, session: str) -> dict[int, bytes]:
    """The last committed deliveries of a session; the latest use of a packet id stands."""
    found: dict[int, bytes] = {}
    rows = connection.execute(
        "SELECT deliveries FROM redelivery_tail WHERE session = ? ORDER BY id", (session,)
    )
    for (blob,) in rows:
        found.update(_ENTRY.iter_unpack(blob))
    return found
