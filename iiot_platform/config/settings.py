"""Settings of the installation: where state lives and which servers it talks to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr

from iiot_platform.config.endpoint import (
    BUFFER_PORT,
    PLATFORM_PORT,
    EndpointError,
    EndpointSettings,
)
from iiot_platform.core.errors import ConfigError
from iiot_platform.core.paths import Home

PLANT_FILE = "plant.yaml"
DATABASE_URL = "IIOT_DATABASE_URL"
PG_SINK_URL = "IIOT_PG_SINK_URL"
PG_SINK_SCHEMA = "IIOT_PG_SINK_SCHEMA"
DEFINITIONS = "iiot_platform.definitions"
INFLUXDB: Final = "influxdb"
POSTGRESQL: Final = "postgresql"
SINK_TITLES: Final = {INFLUXDB: "InfluxDB", POSTGRESQL: "PostgreSQL"}
"""The databases that tables can be written to, by the names that ledger and metrics use."""
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_OFF = "off"
_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # needs no quotes in anybody's query
_TAKEN_SCHEMAS = frozenset({"iiot", "dagster"})
"""Where ledger and Dagster's storage are in a database that they share with the tables."""


class SettingError(ConfigError):
    """An environment variable is missing or wrong."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        super().__init__(f"environment variable {name}: {problem}")


@dataclass(frozen=True, kw_only=True)
class InfluxSettings:
    """The InfluxDB that tables are written to.

    Attributes:
        token: for 2.x and 3; empty where user and password are used.
        username: for 1.x.
        password: for 1.x.
        verify_tls: False accepts any certificate.
        ca_file: authorities that count; None: the system's.
    """

    url: str
    token: SecretStr = field(default_factory=lambda: SecretStr(""))
    org: str = "iiot"
    bucket: str = "iiot"
    username: str | None = None
    password: SecretStr | None = None
    verify_tls: bool = True
    ca_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PostgresSettings:
    """The PostgreSQL that tables are written to.

    Attributes:
        url: with all that libpq understands behind the `?`, `sslmode` among it.
        db_schema: schema of its tables, made where it is missing.
    """

    url: SecretStr
    db_schema: str = "iiot_tables"


SinkSettings = InfluxSettings | PostgresSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an installation needs to know, beside its plant file.

    Attributes:
        buffer_metrics: where the buffer tells of itself; None: nowhere.
        metrics: where `iiot metrics --serve` tells of the platform.
    """

    home: Home = field(default_factory=lambda: Home(Path("var").absolute()))
    plant_path: Path = field(default_factory=lambda: Path(PLANT_FILE).absolute())
    influx: InfluxSettings | None = None
    postgres: PostgresSettings | None = None
    dagster_url: str = "http://127.0.0.1:3000"
    buffer_metrics: EndpointSettings | None = field(
        default_factory=lambda: EndpointSettings(port=BUFFER_PORT)
    )
    metrics: EndpointSettings = field(default_factory=lambda: EndpointSettings(port=PLATFORM_PORT))
    definitions: str = DEFINITIONS
    """Module whose `defs` Dagster loads: the platform's, or one of yours that merges them."""
    grafana_url: str | None = None
    """Where the dashboards are; Dagster links to them."""
    report_url: str | None = None
    """Where `iiot report --serve` shows its page; Dagster links to it."""

    @property
    def sinks(self) -> dict[str, SinkSettings]:
        """The databases that tables are written to, by name."""
        found = {INFLUXDB: self.influx, POSTGRESQL: self.postgres}
        return {name: settings for name, settings in found.items() if settings is not None}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The settings that environment variables give; the one place that knows their names.

        An empty variable counts as one that is not set. Paths become absolute, because the
        processes of one installation have different working directories.

        Raises:
            SettingError: a variable is wrong, or one that another needs is missing.
        """
        variables = {name: value for name, value in environ.items() if value.strip()}
        root = Path(variables.get("IIOT_HOME", "var")).expanduser().absolute()
        home = Home(root, _database(variables))
        shared = _endpoint(variables)
        return cls(
            home=home,
            plant_path=_plant_path(variables, home),
            influx=_influx(variables),
            postgres=_postgres(variables),
            dagster_url=_url(variables, "DAGSTER_UI_URL", "http://127.0.0.1:3000"),
            buffer_metrics=None
            if variables.get("IIOT_BUFFER_METRICS", "").strip().lower() == _OFF
            else _address(variables, "IIOT_BUFFER_METRICS", replace(shared, port=BUFFER_PORT)),
            metrics=_address(variables, "IIOT_METRICS", replace(shared, port=PLATFORM_PORT)),
            definitions=variables.get("IIOT_DEFINITIONS", DEFINITIONS).strip(),
            grafana_url=_optional_url(variables, "GRAFANA_URL"),
            report_url=_optional_url(variables, "IIOT_REPORT_URL"),
        )


def _plant_path(variables: Mapping[str, str], home: Home) -> Path:
    if "IIOT_PLANT" in variables:
        return Path(variables["IIOT_PLANT"]).expanduser().absolute()
    here = Path(PLANT_FILE).absolute()
    return here if here.exists() else home.root / PLANT_FILE


def _database(variables: Mapping[str, str], name: str = DATABASE_URL) -> SecretStr | None:
    text = _secret(variables, name)
    if text is None:
        return None
    # what reads no ledger, such as the buffer, is spared the import
    from iiot_platform.config.database import DatabaseUrlError, normalised  # noqa: PLC0415

    try:
        return normalised(text.get_secret_value())
    except DatabaseUrlError as error:
        raise SettingError(name, str(error)) from error


def _influx(variables: Mapping[str, str]) -> InfluxSettings | None:
    if "INFLUX_URL" not in variables:
        return None
    token = _secret(variables, "INFLUX_TOKEN")
    username = variables.get("INFLUX_USERNAME")
    password = _secret(variables, "INFLUX_PASSWORD")
    if (username is None) != (password is None):
        missing = "INFLUX_USERNAME" if username is None else "INFLUX_PASSWORD"
        raise SettingError(missing, "user and password belong together; set both or neither")
    return InfluxSettings(
        url=_url(variables, "INFLUX_URL", ""),
        token=token or SecretStr(""),
        org=variables.get("INFLUX_ORG", "iiot"),
        bucket=variables.get("INFLUX_BUCKET", "iiot"),
        username=username,
        password=password,
        verify_tls=_flag(variables, "INFLUX_VERIFY_TLS", default=True),
        ca_file=_file(variables, "INFLUX_CA_FILE"),
    )


def _postgres(variables: Mapping[str, str]) -> PostgresSettings | None:
    url = _database(variables, PG_SINK_URL)
    if url is None:
        return None
    db_schema = variables.get(PG_SINK_SCHEMA, PostgresSettings.db_schema).strip()
    if not _SCHEMA_NAME.fullmatch(db_schema):
        raise SettingError(PG_SINK_SCHEMA, "should be of a-z, 0-9 and _, beginning with a letter")
    if db_schema in _TAKEN_SCHEMAS:
        raise SettingError(
            PG_SINK_SCHEMA,
            f"'{db_schema}' is the platform's own schema; leave it unset or name another one",
        )
    return PostgresSettings(url=url, db_schema=db_schema)


def _endpoint(variables: Mapping[str, str]) -> EndpointSettings:
    """What both endpoints share: TLS, the token, and the consent to do without."""
    cert, key = (variables.get(f"IIOT_METRICS_{name}_FILE") for name in ("CERT", "KEY"))
    try:
        return EndpointSettings(
            cert_file=None if cert is None else Path(cert).expanduser(),
            key_file=None if key is None else Path(key).expanduser(),
            token=_secret(variables, "IIOT_METRICS_TOKEN"),
            insecure=_flag(variables, "IIOT_METRICS_INSECURE", default=False),
        )
    except EndpointError as error:
        name = "IIOT_METRICS_CERT_FILE" if cert is None else "IIOT_METRICS_KEY_FILE"
        raise SettingError(name, str(error)) from error


def _address(
    variables: Mapping[str, str], name: str, endpoint: EndpointSettings
) -> EndpointSettings:
    try:
        return endpoint.at(variables[name]) if name in variables else endpoint
    except EndpointError as error:
        raise SettingError(name, str(error)) from error


def _secret(variables: Mapping[str, str], name: str) -> SecretStr | None:
    file_name = f"{name}_FILE"
    if file_name not in variables:
        return SecretStr(variables[name]) if name in variables else None
    if name in variables:
        raise SettingError(file_name, f"{name} is set too; keep one of the two")
    path = Path(variables[file_name]).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingError(file_name, f"can not read '{path}': {reason}") from error
    if not text:
        raise SettingError(file_name, f"'{path}' is empty")
    return SecretStr(text)


def _file(variables: Mapping[str, str], name: str) -> Path | None:
    if name not in variables:
        return None
    path = Path(variables[name]).expanduser().absolute()
    if not path.is_file():
        raise SettingError(name, f"'{path}' is no file")
    return path


def _url(variables: Mapping[str, str], name: str, default: str) -> str:
    url = variables.get(name, default).strip().rstrip("/")
    scheme, separator, host = url.partition("://")
    if scheme not in {"http", "https"} or not separator or not host:
        # the text is not repeated: a URL may carry a password
        raise SettingError(name, "should be a URL that starts with http:// or https://")
    return url


def _optional_url(variables: Mapping[str, str], name: str) -> str | None:
    return _url(variables, name, "") if name in variables else None


def _flag(variables: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = variables.get(name, str(default)).strip().lower()
    if text not in _TRUE | _FALSE:
        raise SettingError(name, f"got '{text}'; should be true or false")
    return text in _TRUE
