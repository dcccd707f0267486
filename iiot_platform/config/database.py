"""The PostgreSQL database that holds the ledger and Dagster's storage, where one is set.

One URL is enough: each of the two has a schema of its own. What libpq understands behind the `?`
(`sslmode`, `sslrootcert`, …) reaches it.
"""

import os
import weakref
from typing import Any, Final

import sqlalchemy as sa
from pydantic import SecretStr

from iiot_platform.core.errors import ConfigError

DRIVER: Final = "postgresql+psycopg2"
_SCHEMES: Final = ("postgresql", "postgres", DRIVER)
_PARAMETERS: Final = {
    # a server that has vanished is noticed within a minute, where the URL says nothing else
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_RECYCLE_S: Final = 3_600

_engines: "weakref.WeakSet[sa.Engine]" = weakref.WeakSet()


class DatabaseUrlError(ConfigError):
    """A text is not the URL of a PostgreSQL database; the message repeats no secret."""


def normalised(text: str) -> SecretStr:
    """A URL with the driver that is installed.

    Raises:
        DatabaseUrlError: it is not the URL of a PostgreSQL database.
    """
    try:
        url = sa.make_url(text.strip())
    except (sa.exc.ArgumentError, ValueError):
        # the cause would repeat the text
        raise DatabaseUrlError("should be postgresql://user:password@host:port/database") from None
    if url.drivername not in _SCHEMES:
        raise DatabaseUrlError(
            f"scheme '{url.drivername}' is not served; PostgreSQL is, as"
            " postgresql://user:password@host:port/database"
        )
    return SecretStr(url.set(drivername=DRIVER).render_as_string(hide_password=False))


def shown(database: SecretStr) -> str:
    """The URL for messages, without its password."""
    return sa.make_url(database.get_secret_value()).render_as_string(hide_password=True)


def connection_url(database: SecretStr, schema: str, *options: str) -> sa.URL:
    """The URL of connections that see one schema; `options` are settings of the server."""
    url = sa.make_url(database.get_secret_value())
    ours = [f"-c{option}" for option in (f"search_path={schema}", "timezone=UTC", *options)]
    theirs = url.query.get("options", ())
    given = [theirs] if isinstance(theirs, str) else [*theirs]
    return url.set(query={**_PARAMETERS, **url.query, "options": " ".join([*given, *ours])})


def connect(url: sa.URL, **options: Any) -> sa.Engine:
    """An engine whose kept connections outlive a restart of the server, and no fork."""
    engine = sa.create_engine(url, pool_pre_ping=True, pool_recycle=_RECYCLE_S, **options)
    _engines.add(engine)
    return engine


def make_schema(connection: sa.Connection, schema: str) -> None:
    """Makes a schema where there is none; a user who may not make it can be given one."""
    lock(connection, "schema")
    if not sa.inspect(connection).has_schema(schema):
        connection.execute(sa.schema.CreateSchema(schema))


def lock(connection: sa.Connection, name: str, *, shared: bool = False) -> None:
    """Waits for a name, and has it until the transaction ends; shared or alone."""
    function = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    connection.execute(sa.select(function(sa.func.hashtextextended(name, _SEED))))


_SEED: Final = 0x11_07
"""Keeps these names apart from those of other users of the database."""


def _forget() -> None:
    """A connection belongs to the process that has made it."""
    for engine in _engines:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget)
