"""Tables of the ledger: small, indexed by line, the same on SQLite and PostgreSQL."""

import hashlib
from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()
_TEXT: Final = sa.Text
_INT: Final = sa.BigInteger
_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")

LAYOUT: Final = sa.Table(
    "layout",
    METADATA,
    sa.Column("digest", _TEXT, primary_key=True),
    comment="What the tables look like; a ledger of another layout is not touched.",
)
LINES: Final = sa.Table(
    "lines",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("watermark", _INT, nullable=False),
    comment="Offsets below the watermark are in the tables.",
)
SETTINGS: Final = sa.Table(
    "settings",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("version", _TEXT, primary_key=True),
    sa.Column("body", _TEXT, nullable=False),
    sa.Column("first_used_ms", _INT, nullable=False),
    comment="Every version of a line's settings that was ever assigned, as JSON.",
)
ASSIGNMENTS: Final = sa.Table(
    "assignments",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("line", _TEXT, nullable=False),
    sa.Column("hour", _INT, nullable=False),
    sa.Column("version", _TEXT, nullable=False),
    sa.Column("at_ms", _INT, nullable=False),
    sa.Index("assignments_hour", "line", "hour"),
    comment="Append-only: which settings an hour is computed under; the last one counts.",
)
PARTITIONS: Final = sa.Table(
    "partitions",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("hour", _INT, primary_key=True),
    sa.Column("version", _INT, nullable=False),
    sa.Column("settings_version", _TEXT, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False),
    sa.Column("batch", _INT, nullable=False),
    sa.Column("updated_ms", _INT, nullable=False),
    comment="Each hour of a line; `version` rises with every commit that touches it.",
)
FILES: Final = sa.Table(
    "files",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("line", _TEXT, nullable=False),
    sa.Column("table_name", _TEXT, nullable=False),
    sa.Column("hour", _INT, nullable=False),
    sa.Column("path", _TEXT, nullable=False),
    sa.Column("rows", _INT, nullable=False),
    sa.Column("bytes", _INT, nullable=False),
    sa.Column("min_ts", _INT, nullable=False),
    sa.Column("max_ts", _INT, nullable=False),
    sa.Column("level", _INT, nullable=False),
    sa.Column("added_version", _INT, nullable=False),
    sa.Column("dropped_version", _INT),
    sa.Column("dropped_ms", _INT),
    sa.Index("files_current", "line", "table_name", "hour", "dropped_version"),
    sa.Index("files_dropped", "dropped_ms"),
    comment="Table files; a version of an hour is the files added up to it and not dropped.",
)
STATES: Final = sa.Table(
    "states",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("series", _TEXT, primary_key=True),
    sa.Column("hour", _INT, primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("hash", _TEXT, nullable=False),
    sa.Column("frontier", _INT, nullable=False),
    sa.Index("states_hour", "line", "hour"),
    comment="Checkpoints: where a series stood behind its last reading of an hour.",
)
RANGES: Final = sa.Table(
    "ranges",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("hour", _INT, primary_key=True),
    sa.Column("lo", _INT, primary_key=True),
    sa.Column("hi", _INT, nullable=False),
    comment="Offset ranges of the log that hold records of an hour, among others.",
)
DIRTY: Final = sa.Table(
    "dirty",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("line", _TEXT, nullable=False),
    sa.Column("hour", _INT, nullable=False),
    sa.Column("series", _TEXT, nullable=False),
    sa.Column("reason", _TEXT, nullable=False),
    sa.Column("rows", _INT, nullable=False),
    sa.Column("since_ms", _INT, nullable=False),
    sa.Index("dirty_hour", "line", "hour"),
    comment="Hours that must be computed again, and why.",
)
BATCHES: Final = sa.Table(
    "batches",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("line", _TEXT, nullable=False),
    sa.Column("kind", _TEXT, nullable=False),
    sa.Column("lo", _INT, nullable=False),
    sa.Column("hi", _INT, nullable=False),
    sa.Column("run_id", _TEXT, nullable=False),
    sa.Column("code_version", _TEXT, nullable=False),
    sa.Column("committed_ms", _INT, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("body", _TEXT, nullable=False),
    sa.Index("batches_line", "line", "id"),
    sa.Index("batches_run", "run_id"),
    comment="Lineage for ever: what every batch read, under which settings, and what it wrote.",
)
COUNTS: Final = sa.Table(
    "counts",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("name", _TEXT, primary_key=True),
    sa.Column("count", _INT, nullable=False),
    comment="Running counts of the live batches: rows per table, quarantine reasons, duplicates.",
)
OUTBOX: Final = sa.Table(
    "outbox",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("sink", _TEXT, nullable=False),
    sa.Column("line", _TEXT, nullable=False),
    sa.Column("table_name", _TEXT, nullable=False),
    sa.Column("hour", _INT, nullable=False),
    sa.Column("file", _INT),
    sa.Column("operation", _TEXT, nullable=False),
    sa.Column("started", sa.Boolean, nullable=False),
    sa.Column("rejected", _TEXT),
    sa.Index("outbox_line", "sink", "line", "id"),
    comment="What each database behind the tables has not been given yet, in order.",
)
FEEDS: Final = sa.Table(
    "feeds",
    METADATA,
    sa.Column("sink", _TEXT, primary_key=True),
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("batch", _INT, nullable=False),
    comment="The last batch that a sink's outbox follows; hours of later ones are given whole.",
)
SINKS: Final = sa.Table(
    "sinks",
    METADATA,
    sa.Column("sink", _TEXT, primary_key=True),
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("failures", _INT, nullable=False),
    sa.Column("retry_at_ms", _INT, nullable=False),
    sa.Column("message", _TEXT, nullable=False),
    comment="Why a database could not be written lately, and when to try again.",
)
TOLD: Final = sa.Table(
    "told",
    METADATA,
    sa.Column("sink", _TEXT, primary_key=True),
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("batch", _INT, nullable=False),
    comment="The last batch of which a database was told what happened.",
)
LIFECYCLE: Final = sa.Table(
    "lifecycle",
    METADATA,
    sa.Column("line", _TEXT, primary_key=True),
    sa.Column("offset", _INT, primary_key=True),
    sa.Column("node", _TEXT, nullable=False),
    sa.Column("device", _TEXT, nullable=False),
    sa.Column("type", _TEXT, nullable=False),
    sa.Column("topic", _TEXT, nullable=False),
    sa.Column("received_ms", _INT, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Index("lifecycle_type", "line", "node", "device", "type", "offset"),
    sa.Index("lifecycle_node", "line", "node", "offset"),
    comment="Append-only: births and deaths of Sparkplug nodes below the watermark, for ever.",
)
LEASES: Final = sa.Table(
    "leases",
    METADATA,
    sa.Column("name", _TEXT, primary_key=True),
    sa.Column("holder", _TEXT, nullable=False),
    sa.Column("expires_ms", _INT, nullable=False),
    comment="Who does what only one process at a time should do, and until when.",
)


def _digest() -> str:
    columns = [
        f"{table.name}.{column.name} {column.type!r} {column.primary_key} {column.nullable}"
        for table in METADATA.sorted_tables
        for column in table.columns
    ]
    return hashlib.blake2b("\n".join(columns).encode(), digest_size=8).hexdigest()


DIGEST: Final = _digest()
"""Names the layout of all tables."""
