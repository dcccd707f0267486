"""The redelivery tail: which messages the broker may send again though they are in the log.

A message that is committed but whose acknowledgement did not reach the broker comes again in
the same session, with DUP set and under the same packet id. The tail keeps (packet id, hash of
topic and payload) of the last deliveries, in the same transaction as their records. Only a delivery
with DUP that is found here is dropped.

There are 65,535 packet ids, and so many deliveries are kept. The window that was agreed is no
bound: mosquitto 2.0.11 has had five times as many messages under way, and when a process is
killed, all acknowledgements that the broker has not read yet are lost with its connection.

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
    upto       INTEGER NOT NULL DEFAULT 0
);
"""
_INDEX: Final = """
DROP INDEX IF EXISTS redelivery_tail_session;
CREATE INDEX IF NOT EXISTS redelivery_tail_upto ON redelivery_tail (session, upto);
"""
_COLUMNS: Final = "PRAGMA table_info (redelivery_tail)"
_ADD_UPTO: Final = "ALTER TABLE redelivery_tail ADD COLUMN upto INTEGER NOT NULL DEFAULT 0"
"""For a tail from before deliveries were counted."""

LENGTH: Final = 65_535
"""Deliveries that are kept of each session: one for each packet id there is."""
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
    if "upto" not in {column for _, column, *_ in connection.execute(_COLUMNS)}:
        connection.execute(_ADD_UPTO)
    connection.executescript(_INDEX)


def clear(connection: sqlite3.Connection, session: str) -> None:
    """Forget a session's deliveries."""
    connection.execute("DELETE FROM redelivery_tail WHERE session = ?", (session,))


def append(connection: sqlite3.Connection, session: str, deliveries: Fingerprints) -> None:
    """Add the deliveries of one commit and forget those before the last `LENGTH`."""
    blob = b"".join(map(_ENTRY.pack, deliveries.keys(), deliveries.values()))
    (before,) = connection.execute(
        "SELECT coalesce(max(upto), 0) FROM redelivery_tail WHERE session = ?", (session,)
    ).fetchone()
    count = len(deliveries)
    connection.execute(
        "INSERT INTO redelivery_tail (session, count, deliveries, upto) VALUES (?, ?, ?, ?)",
        (session, count, blob, before + count),
    )
    connection.execute(
        "DELETE FROM redelivery_tail WHERE session = ? AND upto <= ?",
        (session, before + count - LENGTH),
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
