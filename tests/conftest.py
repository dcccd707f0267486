"""What holds for all tests."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers.buffer import MQTT_CLIENT, MQTT_CLIENTS
from tests.servers.effort import USUAL
from tests.servers.fault_table import (
    ALL,
    PROPERTY,
    Outcome,
    Tell,
    as_property,
    outcomes,
    write_table,
)
from tests.servers.json_schemas import leave_out_iris
from tests.servers.memory import keep_files_in_memory
from tests.servers.postgres import PostgresServer, running_postgres

keep_files_in_memory()
leave_out_iris()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts tests in the background has them ignore SIGINT. Dagster lets SIGTERM do
    # what SIGINT does, and the processes that tests start would inherit that they ignore both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("usual", USUAL)
settings.load_profile("usual")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of a process; each asks it for databases of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=MQTT_CLIENTS)
def mqtt_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that speaks MQTT for the buffers of a test, also those in other processes."""
    client = str(request.param)
    monkeypatch.setenv(MQTT_CLIENT, client)
    return client


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Tell:
    """Takes what a fault did, for the table at the end of the whole fault suite."""

    def tell(outcome: Outcome) -> None:
        if MQTT_CLIENT in os.environ:
            outcome = replace(outcome, fault=f"{outcome.fault} ({os.environ[MQTT_CLIENT]})")
        record_property(PROPERTY, as_property(outcome))

    return tell


@pytest.fixture(autouse=True, scope="session")
def _imports_are_no_garbage() -> Iterator[None]:
    """What was imported by now stays: to look through it ever again takes a tenth of all time.

    What tests leave goes later, which with this much of it is soon enough.
    """
    gc.collect()
    gc.freeze()
    usual = gc.get_threshold()
    gc.set_threshold(10_000, 50, 50)
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ALL:
        return
    ended = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found = outcomes(one.user_properties for one in ended if one.when == "call")
    failed = len(terminalreporter.getreports("failed")) + len(terminalreporter.getreports("error"))
    write_table(found, failed, Path("var") / "faults.json")
