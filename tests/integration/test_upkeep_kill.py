"""`kill -9` of the buffer at every step of compaction, trimming and deleting: nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_us
from iiot_platform.core.consumption import Consumption, write_consumption
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import SealedLog
from tests.servers.capture_log import write_segments
from tests.servers.capture_reader import unlisted_files
from tests.servers.fault_table import ALL, Outcome, Tell

LINE = "line1"
HOUR_US = 3_600_000_000
KEPT_HOURS = 3
ALL_STEPS = [
    ("compact.written", 1),
    ("compact.synced", 1),
    ("compact.renamed", 1),
    ("compact.folder_synced", 1),
    ("commit.written", 1),
    ("commit.durable", 1),
    ("unlink.one", 3),
    ("unlink.all", 1),
]
# the unit tests cut at all of them without a process; IIOT_TEST_ALL_KILLS kills at all of them
STEPS = ALL_STEPS if ALL or os.environ.get("IIOT_TEST_ALL_KILLS") else [*ALL_STEPS[2::3]]
DEADLINE_S = 240.0
SETTINGS = {
    "compact_after_s": 0.001,
    "unlink_grace_s": 0.001,
    "keep_raw_s": (KEPT_HOURS + 1) * 3_600.0,
}


def history() -> list[Record]:
    """Five hours that are over, a record each half minute."""
    end = now_us() // HOUR_US * HOUR_US
    times = range(end - 5 * HOUR_US, end, HOUR_US // 120)
    return [Record("mqtt", f"{LINE}/m/t", b'{"n":%d}' % n, at) for n, at in enumerate(times)]


def _start(home: Home, *at: str) -> subprocess.Popen[bytes]:
    # nobody listens at the port: upkeep needs no broker
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers.buffer", home.root, "1", LINE, *at],
        env=os.environ | {"PYTHONPATH": ".", "BUFFER_SETTINGS": json.dumps(SETTINGS)},
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.faults
@pytest.mark.parametrize("turn", range(3) if ALL else [0])
def test_no_step_of_upkeep_loses_or_doubles_anything(tmp_path: Path, told: Tell, turn: int) -> None:
    home = Home(tmp_path)
    sent = history()
    write_segments(home, LINE, sent, rows=10)
    write_consumption(home, {LINE: Consumption(len(sent), len(sent))})
    chain = SealedLog(home).verify(LINE).chain_hash
    deadline = time.monotonic() + DEADLINE_S
    for step, count in STEPS:
        buffer = _start(home, step, str(count))
        assert buffer.wait(deadline - time.monotonic()) == -signal.SIGKILL
        verdict = SealedLog(home).verify(LINE)
        assert (verdict.damage, verdict.chain_hash) == (None, chain)
    buffer = _start(home)
    try:
        while len(SealedLog(home).segments(LINE)) > KEPT_HOURS + 1 or unlisted_files(home):
            assert time.monotonic() < deadline, "not in time"
            assert buffer.poll() is None
            time.sleep(0.05)
        buffer.send_signal(signal.SIGTERM)
        assert buffer.wait(deadline - time.monotonic()) == 0
    finally:
        if buffer.poll() is None:
            buffer.kill()
            buffer.wait()
    ((_, start),) = LogReader(home).gone(LINE)
    assert 0 < start < len(sent)
    rows = LogReader(home).read(LINE, [(start, len(sent))])
    stored = rows.column("payload").to_pylist()
    kept = [record.payload for record in sent[start:]]
    told(Outcome.of(f"buffer killed at steps of upkeep, turn {turn}", len(STEPS), kept, stored))
    assert stored == kept
    verdict = SealedLog(home).verify(LINE)
    assert (verdict.damage, verdict.chain_hash, verdict.start) == (None, chain, start)
