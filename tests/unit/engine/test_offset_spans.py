from pathlib import Path

from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.offset_spans import SLACK
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, PLANT, contents
from tests.servers.streams import BASE_MS, HOUR_MS, signal

AN_HOUR = 2 * SLACK
STEP_MS = HOUR_MS // AN_HOUR
HOURS = 4
FIRST = hour_of(BASE_MS)
STRAY = 3 * AN_HOUR - SLACK // 2
ASIDE = 2 * AN_HOUR - SLACK // 2


def log() -> list[Record]:
    """Four hours; one message of the first hour comes in the third, and a bad one in the second."""
    records = [signal("t", BASE_MS + i * STEP_MS, i % 7) for i in range(HOURS * AN_HOUR)]
    records[STRAY] = signal("t", BASE_MS + 1, 1.5, received=BASE_MS + STRAY * STEP_MS + 20)
    records[ASIDE] = records[ASIDE]._replace(payload=b"{not json")
    return records


def test_an_hour_of_a_long_batch_has_the_offsets_of_its_own_records(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_segments(home, LINE, log())
    engine = Engine(home, PLANT)
    engine.run_batch(LINE, run_id="live")
    found = [engine.ledger.ranges(LINE, FIRST + i) for i in range(HOURS)]
    assert found == [
        [(0, STRAY + 1)],
        [(AN_HOUR, 2 * AN_HOUR)],
        [(2 * AN_HOUR, 3 * AN_HOUR)],
        [(3 * AN_HOUR, 4 * AN_HOUR)],
    ]
    before = contents(engine)
    for hour in range(FIRST, FIRST + HOURS):
        assert not engine.rerun(LINE, hour, run_id="settle", kind="settle").defects
    after = contents(engine)
    assert {key: before[key] for key in before if "quarantine" in key} == {
        key: after[key] for key in after if "quarantine" in key
    }
    engine.close()


def test_ranges_of_consecutive_batches_join(tmp_path: Path) -> None:
    home = Home(tmp_path)
    records = [signal("t", BASE_MS + i, i % 7) for i in range(3 * AN_HOUR)]
    write_segments(home, LINE, records)
    engine = Engine(home, PLANT)
    while engine.run_batch(LINE, run_id="live", row_cap=AN_HOUR):
        pass
    assert engine.ledger.ranges(LINE, FIRST) == [(0, len(records))]
    engine.close()
