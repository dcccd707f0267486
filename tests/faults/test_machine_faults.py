"""Disk, clock and load misbehave: what was acknowledged is in the log, once."""

import contextlib
import json
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from buffer_service.log.capture import CaptureLog
from buffer_service.log.segment_file import no_step
from buffer_service.service import CaptureService
from buffer_service.sources.mqtt import MqttReceiver
from iiot_platform.core.capture_log import DAMAGED_FOLDER, Record
from iiot_platform.core.paths import Home
from tests.servers.buffer import MQTT_CLIENTS, plant
from tests.servers.fault_table import ALL, Outcome, Tell
from tests.servers.mosquitto import MosquittoServer, program
from tests.servers.numbered import Publisher, stored_bodies, stored_numbers

pytestmark = pytest.mark.faults
DEADLINE_S = 60.0
TOPIC = "line1/press/temp"
RECEIVE_MAXIMUM = 20
Steps = Callable[[str], None]


def with_each_client(test: Callable[..., None]) -> Callable[..., None]:
    """For faults that the client of the broker has a part in; the usual run has the default one."""
    clients = MQTT_CLIENTS if ALL else MQTT_CLIENTS[:1]
    test = pytest.mark.parametrize("mqtt_client", clients, indirect=True)(test)
    return pytest.mark.usefixtures("mqtt_client")(test)


def until(condition: Callable[[], bool], what: str) -> float:
    """Waits; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_S, f"not in time: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def capturing(
    home: Path, port: int, steps: Steps = no_step, **source: Any
) -> Iterator[CaptureService]:
    with CaptureService(Home(home), plant(port, ["line1"], **source), steps=steps) as service:
        until(lambda: service.sources[0].status.state == "connected", "connected")
        yield service


def reached(publisher: Publisher, more: int) -> Callable[[], bool]:
    goal = len(publisher.acknowledged) + more
    return lambda: len(publisher.acknowledged) >= goal


def captured(service: CaptureService) -> int:
    count: int = service.statistics()["lines"]["line1"]["captured"]
    return count


def holds_all(home: Path, publisher: Publisher) -> bool:
    return publisher.acknowledged <= set(stored_numbers(Home(home)))


def finish(
    fault: str, times: int, publisher: Publisher, home: Path, tell: Tell, **more: Any
) -> None:
    """Counts; nothing may be lost or double."""
    outcome = Outcome.of(fault, times, publisher.acknowledged, stored_numbers(Home(home)), **more)
    tell(outcome)
    outcome.must_be_whole()


@contextmanager
def buffer_process(home: Path, port: int, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.buffer", home, str(port), "line1"],
        env=os.environ | {"PYTHONPATH": ".", "BUFFER_SETTINGS": json.dumps(settings)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def status(home: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((Home(home).capture / "status.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def is_connected(home: Path) -> bool:
    sources = status(home).get("sources", {})
    return bool(sources) and sources["mqtt"]["state"] == "connected"


@with_each_client
def test_no_file_may_grow_and_then_it_may_again(tmp_path: Path, told: Tell) -> None:
    times = 5 if ALL else 1
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        buffer_process(tmp_path, broker.port) as process,
    ):
        until(lambda: is_connected(tmp_path), "connected")
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        with Publisher(broker.port) as publisher:
            for _ in range(times):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4_096, unlimited[1]))
                until(reached(publisher, 500), "messages without a disk")
                # the status file is not written either where nothing may be
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
                until(reached(publisher, 100), "messages afterwards")
        recovered_s = until(lambda: holds_all(tmp_path, publisher), "everything")
    finish(
        "disk refuses (file size limit) and works again",
        times,
        publisher,
        tmp_path,
        told,
        recovered_s=recovered_s,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; only root can have it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    refused = "it needs root" if os.geteuid() else ""
    if not refused:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        refused = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    if refused:
        pytest.skip(f"no disk of 8 MB: {refused.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4_096)):
            pass


@with_each_client
def test_the_disk_is_full_and_freed(small_disk: Path, tmp_path: Path, told: Tell) -> None:
    times = 5 if ALL else 1
    ballast = small_disk / "ballast"
    home = small_disk / "home"
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        # the reserve is all but nothing, so that the disk itself refuses
        buffer_process(home, broker.port, disk_stop_free=1.0, disk_warn_free=2.0),
    ):
        until(lambda: is_connected(home), "connected")
        with Publisher(broker.port, rate_per_s=1_000) as publisher:
            for _ in range(times):
                fill_up(ballast)
                until(reached(publisher, 3_000), "messages for a full disk")
                assert not holds_all(home, publisher)
                ballast.unlink()
                until(reached(publisher, 100), "messages afterwards")
        recovered_s = until(lambda: holds_all(home, publisher), "everything")
    finish("disk full (tmpfs) and freed", times, publisher, home, told, recovered_s=recovered_s)


@with_each_client
def test_a_disk_that_takes_its_time(tmp_path: Path, told: Tell) -> None:
    slow: list[str] = []
    most = 12 if ALL else 4

    def wait(step: str) -> None:
        if step in {"commit.written", "seal.written"} and len(slow) < most:
            slow.append(step)
            time.sleep(0.5)

    with (
        MosquittoServer(tmp_path / "broker") as broker,
        capturing(tmp_path, broker.port, wait),
        Publisher(broker.port) as publisher,
    ):
        until(lambda: len(slow) == most, "slow writes")
        publisher.stop()
        recovered_s = until(lambda: holds_all(tmp_path, publisher), "everything")
    finish("disk half a second slow", most, publisher, tmp_path, told, recovered_s=recovered_s)


@with_each_client
def test_a_disk_that_stands_still_takes_no_memory(tmp_path: Path, told: Tell) -> None:
    count, limit, one_read = 3_000, 1_000_000, 300_000
    goes_on, stands_still = threading.Event(), threading.Event()

    def wait(step: str) -> None:
        if step == "commit.written" and stands_still.is_set():
            goes_on.wait(DEADLINE_S)

    with MosquittoServer(tmp_path / "broker") as broker:
        setting = plant(broker.port, ["line1"], held_bytes=limit)
        with CaptureService(Home(tmp_path), setting, steps=wait) as service:
            (source,) = service.sources
            assert isinstance(source, MqttReceiver)
            until(lambda: source.status.counts["subscribed"] == 1, "subscribed")
            stands_still.set()
            subprocess.run(
                [program("mosquitto_pub"), "-p", str(broker.port), "-t", TOPIC, "-l", "-q", "1"],
                input=b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 4_000) for n in range(count)),
                check=True,
                timeout=DEADLINE_S,
            )
            until(lambda: source.status.counts["pauses"] >= 1, "a pause")
            assert limit <= source._inbox.held_bytes <= limit + one_read
            goes_on.set()
            until(lambda: len(stored_numbers(Home(tmp_path))) == count, "everything")
            assert source.status.counts["connects"] == 1
    outcome = Outcome.of(
        "disk stands still, 12 MB for 1 MB", 1, range(count), stored_numbers(Home(tmp_path))
    )
    told(outcome)
    outcome.must_be_whole()


@with_each_client
def test_the_clock_jumps_forward_and_back(
    tmp_path: Path, told: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps_s = [3_600, -3_600] * (4 if ALL else 1)
    shift = [0]
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + shift[0] * 1_000_000_000)
    monkeypatch.setattr("iiot_platform.core.clock.time", clock)
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        capturing(tmp_path, broker.port) as service,
        Publisher(broker.port) as publisher,
    ):
        for jump_s in jumps_s:
            until(reached(publisher, 200), "messages before the jump")
            shift[0] += jump_s
            until(reached(publisher, 200), "messages after it")
        publisher.stop()
        recovered_s = until(lambda: holds_all(tmp_path, publisher), "everything")
        assert service.statistics()["sources"]["mqtt"]["connects"] == 1
    finish(
        "clock jumps by an hour", len(jumps_s), publisher, tmp_path, told, recovered_s=recovered_s
    )


@with_each_client
def test_a_burst_of_ten_times_what_is_sustained(tmp_path: Path, told: Tell) -> None:
    bursts, most = 3 if ALL else 1, 2
    waited: list[tuple[int, int]] = []
    """After each slow commit of a burst: messages published, and committed, since it began."""
    bursting = [False]

    def since() -> tuple[int, int]:
        return len(publisher.acknowledged) - began[0], captured(service) - began[1]

    def wait(step: str) -> None:
        """A disk that takes its time: meanwhile ten times as much comes as it has taken."""
        if step != "commit.written" or not bursting[0]:
            return
        if not waited:
            began[:] = [len(publisher.acknowledged), captured(service)]
        goal = 10 * (since()[1] + RECEIVE_MAXIMUM)
        until(lambda: since()[0] >= goal, "ten times as many")
        waited.append(since())
        bursting[0] = len(waited) < most

    began = [0, 0]
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        capturing(tmp_path, broker.port, wait, receive_maximum=RECEIVE_MAXIMUM) as service,
    ):
        with Publisher(broker.port, rate_per_s=50) as publisher:
            for _ in range(bursts):
                until(reached(publisher, 25), "the usual rate")
                waited.clear()
                publisher.rate_per_s = 2_000
                bursting[0] = True
                until(lambda: len(waited) == most, "a burst")
                publisher.rate_per_s = 50
                published, committed = waited[-1]
                assert published >= 10 * committed > 0
                until(lambda: holds_all(tmp_path, publisher), "what waited at the broker")
        recovered_s = until(lambda: holds_all(tmp_path, publisher), "everything")
        assert service.statistics()["sources"]["mqtt"]["connects"] == 1
    finish(
        "burst of ten times what is sustained",
        bursts,
        publisher,
        tmp_path,
        told,
        recovered_s=recovered_s,
    )


@with_each_client
def test_a_device_that_floods_does_not_keep_others_from_the_log(tmp_path: Path, told: Tell) -> None:
    flooding, quiet = "line1/press/mad", "line1/press/calm"
    with MosquittoServer(tmp_path / "broker") as broker, capturing(tmp_path, broker.port):
        mad = Publisher(broker.port, flooding, rate_per_s=50_000)
        calm = Publisher(broker.port, quiet, rate_per_s=50)
        with calm, mad:
            until(reached(mad, 5_000), "a flood")
            until(reached(calm, 150 if ALL else 75), "the calm device")
        for publisher, topic in ((mad, flooding), (calm, quiet)):
            until(
                lambda p=publisher, t=topic: (
                    p.acknowledged <= set(stored_numbers(Home(tmp_path), topic=t))
                ),
                topic,
            )
    log = Home(tmp_path)
    sent = [(topic, n) for p, topic in ((mad, flooding), (calm, quiet)) for n in p.acknowledged]
    found = [(t, n) for t in (flooding, quiet) for n in stored_numbers(log, topic=t)]
    outcome = Outcome.of("one device floods", 1, sent, found)
    told(outcome)
    outcome.must_be_whole()


def records(start: int, stop: int) -> list[Record]:
    now_us = time.time_ns() // 1_000
    return [
        Record("mqtt", TOPIC, json.dumps({"n": n}).encode(), now_us + n) for n in range(start, stop)
    ]


def log_of(home: Home, sealed: int, still_hot: int = 0) -> None:
    """Segments of 100 records, and hot rows of ten."""
    with CaptureLog(home) as log:
        for start in range(0, sealed, 100):
            _commit(log, records(start, start + 100))
            log.commit(log.new_batch(), log.seal())
        for start in range(sealed, sealed + still_hot, 10):
            _commit(log, records(start, start + 10))


def _commit(log: CaptureLog, some: list[Record]) -> None:
    batch = log.new_batch()
    batch.records["line1"] += some
    log.commit(batch)


def goes_on(home: Home, first: int) -> None:
    """Messages are captured and sealed after what was found at the start."""
    with (
        MosquittoServer(home.root / "broker") as broker,
        capturing(home.root, broker.port) as service,
        Publisher(broker.port, first=first) as publisher,
    ):
        until(reached(publisher, 50), "messages afterwards")
        publisher.stop()
        until(lambda: holds_all(home.root, publisher), "everything")
        until(lambda: service.statistics()["hot_rows"] == 0, "sealed")


def told_as(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def test_a_cut_segment_is_found_at_the_start(
    tmp_path: Path, told: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    log_of(home, 500)
    victim = sorted(home.capture.glob("line1/**/*.parquet"))[2]
    os.truncate(victim, victim.stat().st_size // 2)
    goes_on(home, 10_000)
    found = [n for n in stored_numbers(home) if n < 10_000]
    outcome = Outcome.of(
        "segment cut", 1, range(500), found, noticed="named, set aside, gap record"
    )
    told(outcome)
    assert (outcome.lost, outcome.duplicated) == (100, 0)
    assert victim.name in told_as(caplog)
    assert list((home.capture / DAMAGED_FOLDER).rglob(victim.name))
    assert len(stored_bodies(home, topic="$gap/capture-log")) == 1


@pytest.mark.parametrize("how", ["overwritten", "gone", "empty"])
def test_a_manifest_that_is_no_more(
    tmp_path: Path, told: Tell, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    home = Home(tmp_path)
    log_of(home, 300)
    if how == "gone":
        home.manifest.unlink()
    else:
        home.manifest.write_bytes(b"rubbish " * 4_096 if how == "overwritten" else b"")
    goes_on(home, 10_000)
    found = [n for n in stored_numbers(home) if n < 10_000]
    outcome = Outcome.of(f"manifest {how}", 1, range(300), found, noticed="named, made anew")
    told(outcome)
    outcome.must_be_whole()
    assert "made anew" in told_as(caplog)


def test_a_hot_row_that_can_not_be_read_is_set_aside(
    tmp_path: Path, told: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    log_of(home, 100, still_hot=50)
    with closing(sqlite3.connect(home.manifest)) as db, db:
        db.execute("UPDATE hot SET records = x'c1c1c1' WHERE lo = 120")
    goes_on(home, 10_000)
    found = [n for n in stored_numbers(home) if n < 10_000]
    outcome = Outcome.of("hot row damaged", 1, range(150), found, noticed="named, gap record")
    told(outcome)
    assert (outcome.lost, outcome.duplicated) == (10, 0)
    assert "[120, 130)" in told_as(caplog)
    assert len(stored_bodies(home, topic="$gap/capture-log")) == 1
