"""Deletes runs and all their traces from an instance, a few at a time.

What stands in the asset catalog stays: the newest materialization and observation of every asset
and partition, an attempt at one that no materialization has followed, the newest execution of
every check, and the runs that these belong to. Of such a run that is due only the rest goes.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, DagsterInstance, RunsFilter
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from sqlalchemy.engine import Connection

from iiot_platform.core.errors import StorageError
from iiot_platform.orchestration.pool.journal import Journal

CHUNK_RUNS: Final = 40
"""Runs of one transaction: some milliseconds in which nobody else can write."""
_CHUNK_EVENTS: Final = 500
_PAUSE_S: Final = 0.2
_NO_RUN: Final = ""

_MATERIALIZED: Final = DagsterEventType.ASSET_MATERIALIZATION.value
_OBSERVED: Final = DagsterEventType.ASSET_OBSERVATION.value
_STANDING: Final = (_MATERIALIZED, _OBSERVED)
_ATTEMPTED: Final = (
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    DagsterEventType.ASSET_FAILED_TO_MATERIALIZE.value,
)
_OF_THE_RUN: Final = "PIPELINE_%"

Partitions = Collection[tuple[str, str]]
"""First part of an asset's key, and partition."""

_events = SqlEventLogStorageTable
_checks = AssetCheckExecutionsTable


class ForeignStorageError(StorageError):
    """The instance keeps its data in something that is no SQL database."""

    def __init__(self, storage: object) -> None:
        super().__init__(
            f"Dagster's '{type(storage).__name__}' can not be pruned: expected SQLite, PostgreSQL "
            "or MySQL; configure one of them in dagster.yaml, or turn the schedule off"
        )


@dataclass
class Pruned:
    """What was deleted.

    Attributes:
        runs: with all their traces.
        kept: runs that were due and stay, since something of theirs stands.
        events: rows of the event log.
        checks: executions of asset checks.
        observations: of the events, those that no run has made.
        complete: False where the time was over before all was done.
    """

    runs: int = 0
    kept: int = 0
    events: int = 0
    checks: int = 0
    observations: int = 0
    complete: bool = True


class Pruning:
    """One round of deletions.

    Args:
        instance: what is pruned.
        unsettled: partitions that live runs still work on; runs of theirs stay.
        deadline_s: after it nothing more is begun.
        sleep: lets others write, after each transaction as long as that took.

    Raises:
        ForeignStorageError: the instance is on no SQL database.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        *,
        unsettled: Partitions = (),
        deadline_s: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        runs, events = instance.run_storage, instance.event_log_storage
        if not isinstance(runs, SqlRunStorage):
            raise ForeignStorageError(runs)
        if not isinstance(events, SqlEventLogStorage):
            raise ForeignStorageError(events)
        self._instance, self._runs, self._log = instance, runs, events
        self._unsettled = set(unsettled)
        self._until = time.monotonic() + deadline_s
        self._sleep = sleep
        self._journal = Journal(Path(instance.root_directory)) if instance.is_persistent else None
        self.pruned = Pruned()
        with self._log.index_connection() as connection:
            self._check_keys = self._all_checks(connection)
            self._standing_checks = self._newest_checks(connection)
            last = sa.select(AssetKeyTable.c.last_run_id)
            self._last_runs = {row[0] for row in connection.execute(last)}

    def runs(self, filters: RunsFilter) -> None:
        """Deletes runs that have finished, oldest first; those under way must not be asked for."""
        ids = list(self._instance.get_run_ids(filters))
        ids.reverse()
        for start in range(0, len(ids), CHUNK_RUNS):
            if not self._go_on():
                return
            began = time.monotonic()
            self._prune(ids[start : start + CHUNK_RUNS])
            self._pause(began)

    def observations(self, before: datetime) -> None:
        """Deletes observations that no run has made, but the newest of each asset."""
        newer = _events.alias("newer")
        outdated = (
            sa.select(_events.c.id)
            .where(
                _events.c.run_id == _NO_RUN,
                _events.c.dagster_event_type == _OBSERVED,
                _events.c.timestamp < before.replace(tzinfo=None),
                _superseded(newer, newer.c.dagster_event_type == _OBSERVED),
            )
            .limit(_CHUNK_EVENTS)
        )
        while self._go_on():
            began = time.monotonic()
            with self._log.index_connection() as connection:
                ids = [row[0] for row in connection.execute(outdated)]
                self.pruned.observations += self._delete_events(connection, ids)
            self._pause(began)
            if len(ids) < _CHUNK_EVENTS:
                return

    def _prune(self, ids: Sequence[str]) -> None:
        with self._log.index_connection() as connection:
            unsettled = self._working(connection, ids)
            standing = self._standing(connection, ids) - unsettled
        gone = [run_id for run_id in ids if run_id not in unsettled | standing]
        self.pruned.kept += len(unsettled) + len(standing)
        # the run itself goes last: what a crash leaves is found again by it
        for run_id in gone:
            self._instance.compute_log_manager.delete_logs(prefix=[run_id])
            if self._journal is not None:
                self._journal.remove(run_id)
            if isinstance(self._log, SqliteEventLogStorage):  # Dagster's default: a file per run
                shard = self._log.path_for_shard(run_id)
                for ending in ("", "-wal", "-shm"):
                    Path(f"{shard}{ending}").unlink(missing_ok=True)
        with self._log.index_connection() as connection:
            of_gone = sa.select(_events.c.id).where(_events.c.run_id.in_(gone))
            tags = AssetEventTagsTable.c.event_id.in_(of_gone)
            connection.execute(AssetEventTagsTable.delete().where(tags))
            deleted = connection.execute(_events.delete().where(_events.c.run_id.in_(gone)))
            self.pruned.events += deleted.rowcount
            self.pruned.checks += self._delete_checks(connection, gone)
            self._strip(connection, sorted(standing))
        with self._runs.connect() as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id.in_(gone)))
            connection.execute(RunsTable.delete().where(RunsTable.c.run_id.in_(gone)))
        self.pruned.runs += len(gone)

    def _strip(self, connection: Connection, ids: Sequence[str]) -> None:
        """Deletes what does not stand of runs that stay; checks stand as executions."""
        newer = _events.alias("newer")
        kind = _events.c.dagster_event_type
        replaced = sa.and_(
            kind.in_(_STANDING), _superseded(newer, newer.c.dagster_event_type == kind)
        )
        said = sa.or_(
            kind.is_(None),
            sa.and_(kind.not_in((*_STANDING, *_ATTEMPTED)), kind.not_like(_OF_THE_RUN)),
        )
        found = sa.select(_events.c.id).where(_events.c.run_id.in_(ids), sa.or_(replaced, said))
        rows = [row[0] for row in connection.execute(found)]
        for start in range(0, len(rows), _CHUNK_EVENTS):
            self._delete_events(connection, rows[start : start + _CHUNK_EVENTS])

    def _delete_events(self, connection: Connection, ids: Sequence[int]) -> int:
        tags = AssetEventTagsTable.c.event_id.in_(ids)
        connection.execute(AssetEventTagsTable.delete().where(tags))
        deleted = connection.execute(_events.delete().where(_events.c.id.in_(ids))).rowcount
        self.pruned.events += deleted
        return deleted

    def _delete_checks(self, connection: Connection, ids: Sequence[str]) -> int:
        """The index that knows runs begins with asset and check."""
        deleted = 0
        for key, name in self._check_keys:
            found = _checks.delete().where(
                _checks.c.asset_key == key,
                _checks.c.check_name == name,
                _checks.c.run_id.in_(ids),
            )
            deleted += connection.execute(found).rowcount
        return deleted

    def _standing(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """The runs of which something stands."""
        newer = _events.alias("newer")
        kind, later = _events.c.dagster_event_type, newer.c.dagster_event_type
        newest = sa.or_(
            sa.and_(kind.in_(_STANDING), ~_superseded(newer, later == kind)),
            sa.and_(
                kind.in_(_ATTEMPTED),
                ~_superseded(newer, later == kind),
                ~_superseded(newer, later == _MATERIALIZED),
            ),
        )
        found = sa.select(_events.c.run_id).where(
            _events.c.run_id.in_(ids), _events.c.asset_key.is_not(None), newest
        )
        standing = {row[0] for row in connection.execute(found.distinct())}
        return standing | ((self._standing_checks | self._last_runs) & set(ids))

    def _working(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """The runs with partitions that live runs still work on."""
        found = sa.select(_events.c.run_id, _events.c.asset_key, _events.c.partition).where(
            _events.c.run_id.in_(ids),
            _events.c.asset_key.is_not(None),
            _events.c.partition.in_({partition for _, partition in self._unsettled}),
        )
        return {
            run_id
            for run_id, key, partition in connection.execute(found.distinct())
            if (_line(key), partition) in self._unsettled
        }

    @staticmethod
    def _all_checks(connection: Connection) -> list[tuple[str, str]]:
        found = sa.select(_checks.c.asset_key, _checks.c.check_name).distinct()
        return [(key, name) for key, name in connection.execute(found)]

    @staticmethod
    def _newest_checks(connection: Connection) -> set[str]:
        newest = sa.select(sa.func.max(_checks.c.id)).group_by(
            _checks.c.asset_key, _checks.c.check_name, _checks.c.partition
        )
        found = sa.select(_checks.c.run_id).where(_checks.c.id.in_(newest)).distinct()
        return {row[0] for row in connection.execute(found)}

    def _go_on(self) -> bool:
        self.pruned.complete = self.pruned.complete and time.monotonic() < self._until
        return self.pruned.complete

    def _pause(self, began: float) -> None:
        self._sleep(min(_PAUSE_S, time.monotonic() - began))


def _superseded(newer: Any, of_kind: Any) -> Any:
    """A later event of a kind, for the same asset and partition."""
    return sa.exists().where(
        newer.c.asset_key == _events.c.asset_key,
        newer.c.partition.is_not_distinct_from(_events.c.partition),
        newer.c.id > _events.c.id,
        of_kind,
    )


def _line(asset_key: str) -> str:
    key = AssetKey.from_db_string(asset_key)
    return key.path[0] if key is not None else ""
