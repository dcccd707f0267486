"""The transaction of a commit: compare what it was computed from, then swap, or write nothing."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.commit import Base, Commit, DirtyMark, FileChange, HourChange, StoredState
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.lifecycle_ledger import add_events
from iiot_platform.engine.partition import SeriesState

_PAGE: Final = 500
"""Names that one statement asks for: databases bound the number of parameters."""
RIPPLE: Final = "ripple"
"""Reason of a dirty mark: the hour went on from a state that is another now."""

# to put a statement together takes as long as the database takes over it
_LINE: Final[sa.BindParameter[str]] = sa.bindparam("line")
_HOUR: Final[sa.BindParameter[int]] = sa.bindparam("hour")
_WATERMARK: Final = sa.select(db.LINES.c.watermark).where(db.LINES.c.line == _LINE)
_LAST_BATCH: Final = sa.select(sa.func.max(db.BATCHES.c.id)).where(db.BATCHES.c.line == _LINE)
_VERSIONS: Final = sa.select(db.PARTITIONS.c.hour, db.PARTITIONS.c.version).where(
    db.PARTITIONS.c.line == _LINE,
    db.PARTITIONS.c.hour.in_(sa.bindparam("hours", expanding=True)),
)
_ASSIGNED: Final = (
    sa.select(db.ASSIGNMENTS.c.version)
    .where(db.ASSIGNMENTS.c.line == _LINE, db.ASSIGNMENTS.c.hour == _HOUR)
    .order_by(db.ASSIGNMENTS.c.id.desc())
    .limit(1)
)


def swap(
    connection: sa.Connection, commit: Commit, *, sinks: Sequence[str], now_ms: int
) -> dict[int, int]:
    """Writes a commit within a transaction; returns each hour's new version.

    Args:
        connection: in a transaction that is alone among the writers of the line.
        commit: what changes.
        sinks: names of the databases that want to be told of every change.
        now_ms: the time of the commit, Unix ms.

    Raises:
        CommitLostError: what the commit was computed from has changed; nothing was written.
    """
    _compare(connection, commit)
    ripples = [mark for change in commit.hours for mark in _ripples(connection, commit, change)]
    last = last_batch(connection, commit.line)
    batch = _write_batch(connection, commit, now_ms)
    _follow(connection, commit.line, sinks, last, batch)
    for change in commit.hours:
        _write_hour(connection, commit.line, change, batch, now_ms)
        added = _write_files(connection, commit.line, change, now_ms)
        _write_outbox(connection, commit.line, change, added, sinks)
    for hour in commit.ranges:
        lo, hi = commit.narrower.get(hour, (commit.lo, commit.hi))
        _extend_range(connection, commit.line, hour, lo, hi)
    _write_dirty(connection, commit, ripples, now_ms)
    _count(connection, commit)
    add_events(connection, commit.line, commit.lifecycle)
    return {change.hour: change.base_version + 1 for change in commit.hours}


def watermark(connection: sa.Connection, line: str) -> int:
    """The offset behind the last one that live batches have taken."""
    return connection.execute(_WATERMARK, {"line": line}).scalar() or 0


def last_batch(connection: sa.Connection, line: str) -> int:
    """The line's newest batch; 0: none yet."""
    return connection.execute(_LAST_BATCH, {"line": line}).scalar() or 0


def versions(connection: sa.Connection, line: str, hours: Iterable[int]) -> dict[int, int]:
    """How often each hour was committed; 0: never."""
    found = dict.fromkeys(hours, 0)
    for page in _pages(found):
        for hour, version in connection.execute(_VERSIONS, {"line": line, "hours": page}):
            found[hour] = version
    return found


def last_states(
    connection: sa.Connection, line: str, keys: Iterable[SeriesKey], before: int | None
) -> dict[SeriesKey, StoredState]:
    """The last state of each series, at all or in hours before one."""
    names = {key.text: key for key in keys}
    if not names:
        return {}
    query = _last_states(connection.dialect.name, bounded=before is not None)
    asked = {"line": line, "names": json.dumps(list(names)), "before": before}
    return {
        names[series]: StoredState(hour, SeriesState(blob, frontier))
        for series, hour, blob, frontier in connection.execute(query, asked)
        if series is not None
    }


@cache
def _last_states(dialect: str, *, bounded: bool) -> sa.Select[Any]:
    """One look into the index for each name; `IN` would go through every hour of each."""
    each = {"sqlite": sa.func.json_each, "postgresql": sa.func.json_array_elements_text}[dialect]
    asked = each(sa.bindparam("names")).table_valued("value", name="asked")
    states, earlier = db.STATES.c, db.STATES.alias("earlier")
    last = sa.select(sa.func.max(earlier.c.hour)).where(
        earlier.c.line == _LINE, earlier.c.series == asked.c.value
    )
    if bounded:
        last = last.where(earlier.c.hour < sa.bindparam("before"))
    there = sa.and_(
        states.line == _LINE,
        states.series == asked.c.value,
        states.hour == last.scalar_subquery(),
    )
    # an outer join, since SQLite would begin an inner one with the line's states
    return sa.select(states.series, states.hour, states.blob, states.frontier).select_from(
        asked.outerjoin(db.STATES, there)
    )


def upsert(
    connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Sets the row of a key; the transaction is alone among the writers of its line."""
    where = sa.and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(sa.update(table).where(where).values(**values)).rowcount == 0:
        connection.execute(sa.insert(table).values(**key, **values))


def _pages(names: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(names)
    while page := list(islice(rest, _PAGE)):
        yield page


def _compare(connection: sa.Connection, commit: Commit) -> None:
    taken = watermark(connection, commit.line)
    if commit.kind == "live" and taken != commit.lo:
        raise CommitLostError(commit.line, "the watermark", commit.lo, taken)
    now = versions(connection, commit.line, [change.hour for change in commit.hours])
    done: set[int] = set()
    for change in commit.hours:
        if now[change.hour] != change.base_version:
            raise CommitLostError(
                commit.line,
                f"the version of hour {change.hour}",
                change.base_version,
                now[change.hour],
            )
        stored = last_states(connection, commit.line, change.bases, change.hour)
        for key, base in change.bases.items():
            state = stored.get(key)
            found = None if state is None else Base(state.hour, state.state.hash)
            if found != base and (base is None or base.hour not in done):
                raise CommitLostError(commit.line, f"the state of series '{key.text}'", base, found)
        done.add(change.hour)


def _ripples(connection: sa.Connection, commit: Commit, change: HourChange) -> list[DirtyMark]:
    """Marks for hours that went on from a state that is another now.

    Asked within the transaction: a live batch may have gone on since the hour was computed.
    """
    if not change.whole:
        return []
    states = db.STATES.c
    query = sa.select(states.series, states.hash).where(
        states.line == commit.line, states.hour == change.hour
    )
    before = {str(series): str(name) for series, name in connection.execute(query)}
    after = {key.text: state.hash for key, state in change.states.items()}
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    marks: list[DirtyMark] = []
    for page in _pages(changed):
        following = (
            sa.select(states.series, sa.func.min(states.hour))
            .where(
                states.line == commit.line,
                states.series.in_(page),
                states.hour > change.hour,
            )
            .group_by(states.series)
        )
        marks += [
            DirtyMark(hour, series, RIPPLE, 0) for series, hour in connection.execute(following)
        ]
    return sorted(marks)


def _write_batch(connection: sa.Connection, commit: Commit, now_ms: int) -> int:
    if commit.kind == "live":
        upsert(connection, db.LINES, {"line": commit.line}, {"watermark": commit.hi})
    body = {
        "hours": [
            {
                "hour": change.hour,
                "version": change.base_version + 1,
                "settings": change.settings.version,
                "rows": dict(change.rows),
                "anomalies": change.anomalies,
                "files": [f.added.path for f in change.files if f.added is not None],
                **({"kept_below": change.kept_below} if change.kept_below else {}),
            }
            for change in commit.hours
        ],
        "counts": dict(commit.counts),
    }
    return _inserted(
        connection,
        db.BATCHES,
        [
            {
                "line": commit.line,
                "kind": commit.kind,
                "lo": commit.lo,
                "hi": commit.hi,
                "run_id": commit.run_id,
                "code_version": commit.code_version,
                "committed_ms": now_ms,
                "seconds": commit.seconds,
                "body": json.dumps(body, separators=(",", ":")),
            }
        ],
    )[0]


def _inserted(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Inserts rows; returns their ids in the order of the rows."""
    if not rows:
        return []
    statement = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return [int(name) for name in connection.execute(statement, rows).scalars()]


def _write_hour(
    connection: sa.Connection, line: str, change: HourChange, batch: int, now_ms: int
) -> None:
    _assign(connection, line, change.hour, change.settings, now_ms)
    upsert(
        connection,
        db.PARTITIONS,
        {"line": line, "hour": change.hour},
        {
            "version": change.base_version + 1,
            "settings_version": change.settings.version,
            "settled": change.settled,
            "batch": batch,
            "updated_ms": now_ms,
        },
    )
    replaced = [key.text for key in (*change.states, *change.gone)]
    for page in _pages(replaced):
        connection.execute(
            sa.delete(db.STATES).where(
                db.STATES.c.line == line,
                db.STATES.c.hour == change.hour,
                db.STATES.c.series.in_(page),
            )
        )
    if change.states:
        connection.execute(
            sa.insert(db.STATES),
            [
                {
                    "line": line,
                    "series": key.text,
                    "hour": change.hour,
                    "blob": state.blob,
                    "hash": state.hash,
                    "frontier": state.frontier,
                }
                for key, state in change.states.items()
            ],
        )


def _write_files(
    connection: sa.Connection, line: str, change: HourChange, now_ms: int
) -> dict[str, int]:
    """Drops and adds the files of an hour; returns the new ids by path."""
    version = change.base_version + 1
    for page in _pages([name for files in change.files for name in files.dropped]):
        connection.execute(
            sa.update(db.FILES)
            .where(db.FILES.c.id.in_(page))
            .values(dropped_version=version, dropped_ms=now_ms)
        )
    rows = [
        {
            "line": line,
            "table_name": files.table,
            "hour": change.hour,
            "path": files.added.path,
            "rows": files.added.rows,
            "bytes": files.added.bytes,
            "min_ts": files.added.min_ts,
            "max_ts": files.added.max_ts,
            "level": files.level,
            "added_version": version,
        }
        for files in change.files
        if files.added is not None
    ]
    names = _inserted(connection, db.FILES, rows)
    return {str(row["path"]): name for row, name in zip(rows, names, strict=True)}


def _write_outbox(
    connection: sa.Connection,
    line: str,
    change: HourChange,
    added: Mapping[str, int],
    sinks: Sequence[str],
) -> None:
    rows = [
        {
            "sink": sink,
            "line": line,
            "table_name": files.table,
            "hour": change.hour,
            "file": _id_of(files, added),
            "operation": files.operation,
            "started": False,
        }
        for sink in sinks
        for files in change.files
        if files.operation is not None
    ]
    if rows:
        connection.execute(sa.insert(db.OUTBOX), rows)


def _follow(
    connection: sa.Connection, line: str, sinks: Sequence[str], last: int, batch: int
) -> None:
    """Moves the feeds of sinks that followed the line up to its last batch.

    One that is new, or was not told of some batch, stays where it is: `LedgerOutbox.take_up` gives
    it the hours that changed since.
    """
    for sink in sinks:
        if not last:
            upsert(connection, db.FEEDS, {"sink": sink, "line": line}, {"batch": batch})
            continue
        feed = db.FEEDS.c
        connection.execute(
            sa.update(db.FEEDS)
            .where(feed.sink == sink, feed.line == line, feed.batch == last)
            .values(batch=batch)
        )


def _id_of(files: FileChange, added: Mapping[str, int]) -> int | None:
    return None if files.added is None else added[files.added.path]


def _assign(
    connection: sa.Connection, line: str, hour: int, settings: LineSettings, now_ms: int
) -> None:
    last = connection.execute(_ASSIGNED, {"line": line, "hour": hour}).scalar()
    if last == settings.version:
        return
    known = connection.execute(
        sa.select(db.SETTINGS.c.version).where(
            db.SETTINGS.c.line == line, db.SETTINGS.c.version == settings.version
        )
    ).scalar()
    if known is None:
        connection.execute(
            sa.insert(db.SETTINGS).values(
                line=line,
                version=settings.version,
                body=settings.model_dump_json(),
                first_used_ms=now_ms,
            )
        )
    connection.execute(
        sa.insert(db.ASSIGNMENTS).values(
            line=line, hour=hour, version=settings.version, at_ms=now_ms
        )
    )


def _extend_range(connection: sa.Connection, line: str, hour: int, lo: int, hi: int) -> None:
    """Adds [lo, hi) to the ranges of an hour; a range that ends at `lo` grows instead."""
    grown = connection.execute(
        sa.update(db.RANGES)
        .where(db.RANGES.c.line == line, db.RANGES.c.hour == hour, db.RANGES.c.hi == lo)
        .values(hi=hi)
    )
    if grown.rowcount == 0:
        connection.execute(sa.insert(db.RANGES).values(line=line, hour=hour, lo=lo, hi=hi))


def _write_dirty(
    connection: sa.Connection, commit: Commit, ripples: list[DirtyMark], now_ms: int
) -> None:
    for page in _pages(commit.cleared):
        connection.execute(sa.delete(db.DIRTY).where(db.DIRTY.c.id.in_(page)))
    rows = [
        {"line": commit.line, "since_ms": now_ms, **mark._asdict()}
        for mark in (*commit.dirty, *ripples)
    ]
    if rows:
        connection.execute(sa.insert(db.DIRTY), rows)


def _count(connection: sa.Connection, commit: Commit) -> None:
    """Adds the commit's counts to the running ones of its line."""
    if not commit.counts:
        return
    counts = db.COUNTS.c
    query = sa.select(counts.name).where(counts.line == commit.line)
    known = set(connection.execute(query).scalars())
    old = [{"which": name, "more": n} for name, n in commit.counts.items() if name in known]
    new = [
        {"line": commit.line, "name": name, "count": n}
        for name, n in commit.counts.items()
        if name not in known
    ]
    if old:
        connection.execute(
            sa.update(db.COUNTS)
            .where(counts.line == commit.line, counts.name == sa.bindparam("which"))
            .values(count=counts.count + sa.bindparam("more")),
            old,
        )
    if new:
        connection.execute(sa.insert(db.COUNTS), new)
