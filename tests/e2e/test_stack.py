"""What `deploy/compose.yml` starts, for real and together, with its own health checks."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from pydantic import SecretStr

from iiot_platform.config.settings import PostgresSettings
from iiot_platform.core import schema
from iiot_platform.core.paths import Home
from iiot_platform.engine.ledger import Ledger
from tests.servers import influx
from tests.servers.dagster import wait_for
from tests.servers.http_client import get, samples
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.stack import ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LINES = ("line1", "line2")
FULL = os.environ.get("IIOT_TEST_STACK") == "full"
"""Dagster's processes are started a second time too, which takes as long as the first."""
HEALTHY_S = 300.0
"""For a machine that has much else to do."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(tmp_path: Path) -> Iterator[influx.Influx]:
    influx.require()
    folder = tmp_path / "influx"
    folder.mkdir()
    with influx.server(folder) as server:
        yield server


def set_up(folder: Path, postgres: PostgresServer, database: influx.Influx) -> tuple[Stack, str]:
    """The files that `deploy/up` makes, and what of them is another here."""
    there = int(database.url.rpartition(":")[2])
    stack = Stack(
        folder,
        {"influxdb": {8086: there}, "postgres": {5432: postgres.port}},
        {"PG_SINK_URL_FILE": "./secrets/pg_sink_url"},
    )
    stack.prepare()
    token = stack.path("dagster-code", "/run/influx/token")
    token.parent.mkdir()
    token.write_text(database.token, encoding="utf-8")
    url = postgres.database().get_secret_value()
    for name in ("database_url", "postgres_password"):
        (folder / "secrets" / name).chmod(0o600)
    for name in ("database_url", "pg_sink_url"):
        (folder / "secrets" / name).write_text(url, encoding="utf-8")

    path = folder / "plant" / "plant.yaml"
    plant = yaml.safe_load(stack.translated("buffer", path.read_text(encoding="utf-8")))
    for source in plant["sources"]:
        assert (source["host"], source["port"]) == ("mosquitto", 8883)
        source |= {"host": "127.0.0.1", "port": stack.port("mosquitto", 8883)}
    # a line is its name
    plant["lines"] = list(LINES)
    path.write_text(yaml.safe_dump(plant), encoding="utf-8")
    # a PLC: the same plant under another user
    broker = plant["sources"][0] | {
        "username": "plc",
        "password_file": str(folder / "secrets" / "mqtt_plc"),
    }
    plc = folder / "plc.yaml"
    plc.write_text(yaml.safe_dump({"sources": [broker], "lines": list(LINES)}), encoding="utf-8")
    return stack, url


def publish(folder: Path, seconds: int) -> int:
    """Messages that the broker has acknowledged to the simulated PLCs."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iiot_platform.cli", "simulate"),
            *("--seconds", str(seconds), "--json"),
        ],
        env={
            **os.environ,
            "IIOT_HOME": str(folder / "simulated"),
            "IIOT_PLANT": str(folder / "plc.yaml"),
            "PYTHONPATH": str(ROOT),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    assert counts["refused"] == 0
    return int(counts["published"])


def start_all(stack: Stack) -> None:
    for service in stack.ours:
        for name in stack.wants(service):
            if name in stack.processes:
                stack.wait_until_well(name, HEALTHY_S)
        stack.start(service)
    for service in stack.ours:
        stack.wait_until_well(service, HEALTHY_S)


def told(stack: Stack) -> dict[str, float]:
    """What the exporter says."""
    status, text = get(f"http://127.0.0.1:{stack.port('exporter', 9471)}/metrics")
    assert status == 200
    return samples(text)


def total(metrics: dict[str, float], name: str) -> int:
    return int(sum(metrics[f'{name}{{line="{line}"}}'] for line in LINES))


def wait_until_computed(stack: Stack, published: int) -> dict[str, float]:
    def look() -> dict[str, float] | None:
        found = told(stack)
        if any(f'iiot_line_consumed_offset{{line="{line}"}}' not in found for line in LINES):
            return None
        return found if total(found, "iiot_line_consumed_offset") >= published else None

    found: dict[str, float] = wait_for(look, f"{published} messages in the tables", HEALTHY_S)
    assert total(found, "iiot_line_captured_offset") == published
    assert total(found, "iiot_line_lag_rows") == 0
    return found


def captured(stack: Stack) -> int:
    """Records in the log, as the buffer says."""
    with contextlib.suppress(OSError):
        _, text = get(f"http://127.0.0.1:{stack.port('buffer', 9470)}/metrics")
        return sum(
            int(value)
            for name, value in samples(text).items()
            if name.startswith("iiot_buffer_messages_captured_total")
        )
    return 0


def compute(stack: Stack) -> None:
    """What was captured, without Dagster, as the code server would be asked to."""
    subprocess.run(
        [sys.executable, "-m", "iiot_platform.cli", "batch"],
        env=stack.environ("dagster-code"),
        cwd=stack.folder,
        check=True,
        capture_output=True,
    )


def consumed(url: str) -> int:
    """Records that are in the tables, as the ledger in PostgreSQL says."""
    with contextlib.closing(Ledger.of(Home(Path(), SecretStr(url)))) as ledger:
        return sum(ledger.watermark(line) for line in LINES)


def points(database: influx.Influx) -> int:
    rows = database.query(f'SELECT count(*) FROM "{schema.SIGNALS.measurement}"')
    return max((int(n) for n in rows[0].values() if isinstance(n, int)), default=0) if rows else 0


def rows(url: str) -> int:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with contextlib.suppress(sa.exc.ProgrammingError), engine.connect() as connection:
        table = f"{PostgresSettings.db_schema}.{schema.SIGNALS.name}"
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
    return 0  # no table yet


def test_the_whole_stack_loses_nothing_over_a_restart(
    tmp_path: Path, postgres: PostgresServer, database: influx.Influx
) -> None:
    stack, url = set_up(tmp_path, postgres, database)
    try:
        stack.start_broker()
        stack.wait_until_well("mosquitto", HEALTHY_S)
        start_all(stack)
        published = publish(tmp_path, 4)
        wait_until_computed(stack, published)
        assert wait_for(lambda: points(database), "points in InfluxDB", HEALTHY_S)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            done = "SELECT count(*) FROM dagster.runs WHERE status = 'SUCCESS'"
            assert wait_for(
                lambda: connection.exec_driver_sql(done).scalar(), "a run in PostgreSQL", HEALTHY_S
            )
        assert wait_for(lambda: rows(url), "rows in PostgreSQL", HEALTHY_S)
        assert not (tmp_path / "home" / "ledger.sqlite").exists()
        status, _ = get(f"http://127.0.0.1:{stack.port('dagster-webserver', 3000)}/server_info")
        assert status == 200

        stack.stop(*stack.ours)
        # the broker keeps it for the buffer, over its own restart as well
        published += publish(tmp_path, 3)
        stack.stop("mosquitto")
        stack.start_broker()
        stack.wait_until_well("mosquitto", HEALTHY_S)
        if FULL:
            start_all(stack)
            wait_until_computed(stack, published)
        else:
            stack.start("buffer")
            wait_for(lambda: captured(stack) == published, "the rest in the log", HEALTHY_S)
            # what is durable is counted at once and sealed a moment later, at the latest at the end
            stack.stop("buffer")
            compute(stack)
            assert consumed(url) == published
    finally:
        stack.kill()
