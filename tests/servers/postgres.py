"""A real PostgreSQL for tests: a cluster of its own that can be killed and started again.

It listens on a free port of 127.0.0.1 and nowhere else. Started by root it runs as the system's
user `postgres`, since the server refuses root.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from iiot_platform.config.database import normalised
from iiot_platform.engine.ledger_schema import LAYOUT
from iiot_platform.orchestration.pool.parenthood import end_with
from tests.servers.certificates import Authority, KeyPair
from tests.servers.ports import free_port

USER = "iiot"
PASSWORD = "geheim"  # noqa: S105 - of a server that lives as long as a test
_DEBIAN = "usr/lib/postgresql/[0-9]*/bin"
_DEADLINE_S = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on"}
TIMESCALE = os.environ.get("IIOT_TEST_TIMESCALEDB") == "1"
"""True where the databases behind the tables have the TimescaleDB extension."""
_TIMESCALE = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}


def programs() -> Path | None:
    """The folder with the programs of one version of the server; None where there is none."""
    debian = sorted(Path("/").glob(_DEBIAN), key=lambda path: int(path.parts[-2]))
    found = [str(folder / "initdb") for folder in reversed(debian)] + [shutil.which("initdb")]
    return next((Path(path).parent for path in found if path and Path(path).exists()), None)


@dataclass
class PostgresServer:
    """One cluster below a folder that every user may enter."""

    programs: Path
    folder: Path
    authority: Authority | None = None
    """With it the server has a certificate, and takes no connection that is not encrypted."""
    port: int = field(default_factory=free_port)
    durable: bool = False
    _process: "subprocess.Popen[bytes] | None" = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _left: list[SecretStr] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def make(self) -> None:
        """Makes the cluster."""
        self.data.mkdir(mode=0o700)
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        user = _user()
        if user is not None:
            for path in (self.folder, self.data, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        subprocess.run(
            [
                *(self.programs / "initdb", "-D", self.data, "-U", USER, "-N"),
                *("-E", "UTF8", "--locale=C", "-A", "scram-sha-256", f"--pwfile={password}"),
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **_as(user),
        )
        if self.authority is not None:
            self._encrypt(self.authority.issue("localhost"), user)

    def _encrypt(self, pair: KeyPair, user: pwd.struct_passwd | None) -> None:
        for source, name in ((pair.cert_file, "server.crt"), (pair.key_file, "server.key")):
            path = self.data / name
            shutil.copy(source, path)
            path.chmod(0o600)
            if user is not None:
                os.chown(path, user.pw_uid, user.pw_gid)
        rule = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rule, encoding="utf-8")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write("ssl = on\n")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        parent = os.getpid()
        settings = (
            _SETTINGS | (_DURABLE if self.durable else {}) | (_TIMESCALE if TIMESCALE else {})
        )
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.programs / "postgres", "-D", self.data),
                    *("-p", str(self.port), *options),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - before any thread of ours
                **_as(_user()),
            )
        until = time.monotonic() + _DEADLINE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.folder / "log").read_text(encoding="utf-8")[-2_000:]
                raise RuntimeError(f"postgres does not answer: {said}")
            time.sleep(0.05)

    def ensure(self) -> None:
        """Starts it where a test has left it killed."""
        if self._process is None:
            self.start()

    def kill(self) -> None:
        """Kills the server as a crash would, all its processes at once."""
        if self._process is not None:
            children = []
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                children = psutil.Process(self._process.pid).children(recursive=True)
            # each has a group of its own, and would go on until it misses its parent
            self._process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children, timeout=_DEADLINE_S)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the server, connections or not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self.kill()

    def database(self) -> SecretStr:
        """The URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        with self._admin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    @contextlib.contextmanager
    def databases(self, schema: str) -> Iterator[Callable[[], SecretStr]]:
        """Gives URLs of databases without rows, which later tests get again.

        To make one with its tables takes ten times as long as to empty it.
        """
        given: list[SecretStr] = []

        def give() -> SecretStr:
            given.append(self._left.pop() if self._left else self.database())
            return given[-1]

        yield give
        self._left += [url for url in given if _emptied(url, schema)]

    def lent_database(
        self, password: str = PASSWORD, schemas: Sequence[str] = ("iiot", "dagster")
    ) -> SecretStr:
        """As `database`, for a user who may do no more than fill schemas that he was given."""
        name = f"test{next(self._numbers)}"
        with self._admin() as connection:
            connection.exec_driver_sql(
                f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"
                " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            )
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
            connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {name} TO {name}")
        with self._admin(name) as connection:
            connection.exec_driver_sql("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            for schema in schemas:
                connection.exec_driver_sql(f"CREATE SCHEMA {schema} AUTHORIZATION {name}")
        return self.url(name, user=name, password=password)

    def url(
        self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD
    ) -> SecretStr:
        text = f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"
        if self.authority is not None:
            text += f"?sslmode=verify-full&sslrootcert={self.authority.ca_file}"
        return normalised(text)

    @contextlib.contextmanager
    def _admin(self, database: str = "postgres") -> Iterator[sa.Connection]:
        url = self.url(database).get_secret_value()
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection

    def _answers(self) -> bool:
        try:
            with self._admin():
                return True
        except sa.exc.OperationalError:
            return False


def _emptied(url: SecretStr, schema: str) -> bool:
    """Takes all rows out of a schema; False where somebody still holds a lock on them."""
    engine = sa.create_engine(url.get_secret_value(), poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET lock_timeout = '2s'")
            found = sa.inspect(connection).get_table_names(schema)
            tables = [table for table in found if table != LAYOUT.name]
            if tables:
                names = ", ".join(f'"{schema}"."{table}"' for table in tables)
                connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
    except sa.exc.OperationalError:
        return False
    return True


def _user() -> pwd.struct_passwd | None:
    """Whom the server runs as; None: as this process."""
    return None if os.getuid() else pwd.getpwnam("postgres")


def _as(user: pwd.struct_passwd | None) -> dict[str, int]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}


@contextlib.contextmanager
def running_postgres(
    authority: Authority | None = None, *, durable: bool = False
) -> Iterator[PostgresServer]:
    """A server for as long as the block lasts; a skipped test where none is installed.

    Args:
        authority: makes its certificate.
        durable: True where it waits for the disk, as installed ones do.
    """
    folder_of_programs = programs()
    if folder_of_programs is None:
        reason = "PostgreSQL is not installed: run tests/servers/install"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true no test may be skipped")
        pytest.skip(reason)
    # not below pytest's folder, which only its own user may enter
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = PostgresServer(folder_of_programs, Path(folder), authority, durable=durable)
        try:
            server.make()
            server.start()
            yield server
        finally:
            server.stop()
