"""Ledger, Dagster's storage and tables in a PostgreSQL that is reached over TLS, or must not be."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster_postgres.utils
import pytest
import sqlalchemy as sa
from dagster import DagsterInstance
from pydantic import SecretStr

from iiot_platform.config.settings import PostgresSettings, Settings
from iiot_platform.core.errors import PlatformError, SinkError
from iiot_platform.core.paths import Home
from iiot_platform.engine.errors import LedgerError
from iiot_platform.engine.ledger import Ledger
from iiot_platform.orchestration.instance import instance_environ, prepare_instance
from iiot_platform.orchestration.storage_postgres import DatabaseAwayError
from iiot_platform.sinks.postgresql import PostgresSink
from tests.servers.certificates import Authority
from tests.servers.postgres import PASSWORD, PostgresServer, running_postgres


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Takes no connection that is not encrypted."""
    with running_postgres(Authority(tmp_path_factory.mktemp("authority"))) as server:
        yield server


@pytest.fixture(scope="module")
def plain() -> Iterator[PostgresServer]:
    """Knows no encryption."""
    with running_postgres() as server:
        yield server


def open_ledger(home: Home) -> None:
    with closing(Ledger.of(home)) as ledger:
        assert ledger.watermark("line1") == 0


def open_storage(home: Home) -> None:
    prepare_instance(home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in instance_environ(home, {}).items():
            patch.setenv(name, value)
        with DagsterInstance.from_config(str(home.dagster)) as instance:
            assert instance.get_runs_count() == 0


def open_tables(home: Home) -> None:
    assert home.database is not None
    with PostgresSink(PostgresSettings(url=home.database)) as sink:
        assert sink.server().can_delete


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dagster_postgres.utils, "calculate_delay", lambda **_: 0.0)


each_store = pytest.mark.parametrize("opened", [open_ledger, open_storage, open_tables])


def home_at(folder: Path, url: str) -> Home:
    """As an installation has it: the URL in a file."""
    file = folder / "database_url"
    file.write_text(url, encoding="utf-8")
    environ = {"IIOT_HOME": str(folder / "var"), "IIOT_DATABASE_URL_FILE": str(file)}
    home = Settings.from_environ(environ).home
    home.root.mkdir()
    return home


def changed(url: SecretStr, **query: str) -> str:
    return (
        sa.make_url(url.get_secret_value())
        .update_query_dict(query)
        .render_as_string(hide_password=False)
    )


def encryption(url: SecretStr) -> set[bool]:
    """Whether the connections to a database are encrypted, as its server says."""
    engine = sa.create_engine(url.get_secret_value(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE datname = current_database()"
        )
        return {row.ssl for row in rows}


@each_store
def test_the_right_authority_is_enough(
    tmp_path: Path, encrypted: PostgresServer, opened: Callable[[Home], None]
) -> None:
    url = encrypted.lent_database()
    opened(home_at(tmp_path, url.get_secret_value()))
    assert encryption(url) == {True}


@each_store
def test_a_server_of_another_authority_is_refused(
    tmp_path: Path, encrypted: PostgresServer, opened: Callable[[Home], None]
) -> None:
    other = Authority(tmp_path / "other", "another authority")
    url = changed(encrypted.lent_database(), sslrootcert=str(other.ca_file))
    refused(opened, home_at(tmp_path, url), "certificate verify failed")


@each_store
def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, encrypted: PostgresServer, opened: Callable[[Home], None]
) -> None:
    # reached at an address that the certificate does not have
    url = changed(encrypted.lent_database(), host="db.plant.example", hostaddr="127.0.0.1")
    refused(opened, home_at(tmp_path, url), 'does not match host name "db.plant.example"')


@each_store
def test_a_plain_connection_is_refused_by_the_server(
    tmp_path: Path, encrypted: PostgresServer, opened: Callable[[Home], None]
) -> None:
    url = changed(encrypted.lent_database(), sslmode="disable")
    refused(opened, home_at(tmp_path, url), "no encryption")


@each_store
def test_a_server_without_tls_is_refused(
    tmp_path: Path, plain: PostgresServer, opened: Callable[[Home], None]
) -> None:
    authority = Authority(tmp_path / "authority")
    url = changed(plain.database(), sslmode="verify-full", sslrootcert=str(authority.ca_file))
    refused(opened, home_at(tmp_path, url), "server does not support SSL")


def refused(opened: Callable[[Home], None], home: Home, reason: str) -> None:
    kind = {open_ledger: LedgerError, open_storage: DatabaseAwayError, open_tables: SinkError}
    with pytest.raises(PlatformError, match=reason) as told:
        opened(home)
    assert isinstance(told.value, kind[opened])
    assert PASSWORD not in str(told.value)
