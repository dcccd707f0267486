from pathlib import Path

import pytest

from iiot_platform.config.settings import SettingError, Settings

PG_SINK = {"IIOT_PG_SINK_URL": "postgresql://me@db/plant"}


def test_nothing_needs_to_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environ({})

    assert settings.home.root == tmp_path / "var"
    assert settings.plant_path == tmp_path / "var" / "plant.yaml"
    assert settings.influx is None
    assert settings.dagster_url == "http://127.0.0.1:3000"
    assert settings.grafana_url is settings.report_url is None


def test_a_plant_file_here_comes_before_that_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plant.yaml").touch()

    assert Settings.from_environ({}).plant_path == tmp_path / "plant.yaml"
    assert Settings.from_environ({"IIOT_PLANT": "x.yaml"}).plant_path == tmp_path / "x.yaml"


def test_the_token_can_stand_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token\n", encoding="utf-8")
    settings = Settings.from_environ(
        {"INFLUX_URL": "http://127.0.0.1:8086/", "INFLUX_TOKEN_FILE": str(token)}
    )

    assert settings.influx is not None
    assert settings.influx.url == "http://127.0.0.1:8086"
    assert settings.influx.token.get_secret_value() == "secret-token"
    assert "secret-token" not in repr(settings)


def test_one_variable_names_the_database_and_its_password_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://me:hunter2@db:5433/plant?sslmode=verify-full\n", encoding="utf-8")
    settings = Settings.from_environ({"IIOT_DATABASE_URL_FILE": str(file)})

    assert settings.home.database is not None
    assert settings.home.database.get_secret_value() == (
        "postgresql+psycopg2://me:hunter2@db:5433/plant?sslmode=verify-full"
    )
    assert "hunter2" not in repr(settings)
    assert Settings.from_environ({}).home.database is None


def test_tables_can_go_to_postgresql_beside_influxdb_and_its_url_is_never_shown(
    tmp_path: Path,
) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://me:hunter2@db/plant?sslmode=verify-full\n", encoding="utf-8")
    settings = Settings.from_environ({"IIOT_PG_SINK_URL_FILE": str(file)})
    assert settings.postgres is not None
    assert settings.postgres.db_schema == "iiot_tables"
    assert settings.postgres.url.get_secret_value().endswith("/plant?sslmode=verify-full")
    assert "hunter2" not in repr(settings)
    assert list(settings.sinks) == ["postgresql"]
    both = Settings.from_environ(
        {
            "INFLUX_URL": "http://x",
            "IIOT_PG_SINK_URL": "postgres://me@db/plant",
            "IIOT_PG_SINK_SCHEMA": "plant_7",
        }
    )
    assert list(both.sinks) == ["influxdb", "postgresql"]
    assert both.postgres is not None
    assert both.postgres.db_schema == "plant_7"
    assert Settings.from_environ({}).sinks == {}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_environ({"INFLUX_URL": "", "IIOT_HOME": " "}).influx is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"INFLUX_URL": "127.0.0.1:8086"}, "INFLUX_URL: should be a URL"),
        ({"DAGSTER_UI_URL": "http://"}, "DAGSTER_UI_URL: should be a URL"),
        ({"GRAFANA_URL": "grafana:3000"}, "GRAFANA_URL: should be a URL"),
        ({"INFLUX_URL": "http://x", "INFLUX_TOKEN_FILE": "/none"}, "can not read '/none'"),
        ({"INFLUX_URL": "http://x", "INFLUX_TOKEN": "a", "INFLUX_TOKEN_FILE": "b"}, "keep one"),
        ({"INFLUX_URL": "http://x", "INFLUX_TOKEN_FILE": "/dev/null"}, "'/dev/null' is empty"),
        ({"INFLUX_URL": "http://x", "INFLUX_USERNAME": "a"}, "INFLUX_PASSWORD: user and"),
        ({"INFLUX_URL": "http://x", "INFLUX_VERIFY_TLS": "maybe"}, "should be true or false"),
        ({"IIOT_DATABASE_URL": "mysql://a@b/c"}, "IIOT_DATABASE_URL: scheme 'mysql' is not served"),
        ({"IIOT_DATABASE_URL": "db:5432"}, "IIOT_DATABASE_URL: should be postgresql://"),
        ({"IIOT_DATABASE_URL": "a", "IIOT_DATABASE_URL_FILE": "b"}, "keep one"),
        ({"IIOT_PG_SINK_URL": "http://x"}, "IIOT_PG_SINK_URL: scheme 'http' is not served"),
        ({**PG_SINK, "IIOT_PG_SINK_SCHEMA": "iiot"}, "SCHEMA: 'iiot' is the platform's own"),
        ({**PG_SINK, "IIOT_PG_SINK_SCHEMA": 'x"; --'}, "SCHEMA: should be of a-z, 0-9"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.from_environ(environ)


def test_a_url_with_a_password_is_not_repeated() -> None:
    with pytest.raises(SettingError) as caught:
        Settings.from_environ({"INFLUX_URL": "ftp://user:hunter2@host"})

    assert "hunter2" not in str(caught.value)
    for url in ("mysql://user:hunter2@host/db", "user:hunter2@host", "postgresql://a:hunter2@h:x/"):
        with pytest.raises(SettingError) as caught:
            Settings.from_environ({"IIOT_DATABASE_URL": url})
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None or "hunter2" not in repr(caught.value.__cause__)
