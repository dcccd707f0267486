"""Dagster's own storage: SQLite files below the instance, or PostgreSQL where a database is set."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from dagster import StringSource
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.schedules import SqlScheduleStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from iiot_platform.config.settings import Settings
from iiot_platform.orchestration.event_text import pack_events


class Parts(NamedTuple):
    """The three storages that an instance needs."""

    runs: SqlRunStorage
    events: SqlEventLogStorage
    schedules: SqlScheduleStorage


class InstanceStorage(DagsterStorage, ConfigurableClass):
    """Runs, events and schedules of an instance.

    Args:
        parts: where each of them is.
        inst_data: where its configuration came from.
    """

    def __init__(self, parts: Parts, inst_data: ConfigurableClassData | None = None) -> None:
        self._parts = parts
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster has no types here

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Where its configuration came from."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """`base_dir`: the instance folder, which holds the files where no database is set."""
        return {"base_dir": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> Self:
        """The storage that the environment asks for; a URL never stands in `dagster.yaml`."""
        pack_events()
        database = Settings.from_environ(os.environ).home.database
        # of the two only one is needed, and both take long to import
        if database is None:
            from iiot_platform.orchestration.storage_sqlite import sqlite_parts  # noqa: PLC0415

            return cls(Parts(*sqlite_parts(config_value["base_dir"])), inst_data)
        from iiot_platform.orchestration.storage_postgres import postgres_parts  # noqa: PLC0415

        return cls(Parts(*postgres_parts(database)), inst_data)

    def register_instance(self, instance: Any) -> None:
        """Makes the instance known to all three."""
        super().register_instance(instance)
        for storage in self._parts:
            if not storage.has_instance:
                storage.register_instance(instance)

    @property
    def event_log_storage(self) -> SqlEventLogStorage:
        """Events."""
        return self._parts.events

    @property
    def run_storage(self) -> SqlRunStorage:
        """Runs."""
        return self._parts.runs

    @property
    def schedule_storage(self) -> SqlScheduleStorage:
        """Schedules."""
        return self._parts.schedules

    @property
    def event_storage_data(self) -> ConfigurableClassData | None:
        """None: it is no part that could be configured alone."""
        return None

    @property
    def run_storage_data(self) -> ConfigurableClassData | None:
        """None, likewise."""
        return None

    @property
    def schedule_storage_data(self) -> ConfigurableClassData | None:
        """None, likewise."""
        return None

    def dispose(self) -> None:
        """Ends all three."""
        for storage in self._parts:
            storage.dispose()
