import itertools
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.plant import Chunk
from simulator.recording import read_recording
from simulator.replay import ReplayOptions, _timed, chunks

START = 1_790_000_000_000
TEXT = "time,x,anomaly\n1000,1,0\n1010,2,1\n1030,3,1\n1020,4,0\n1100,5,1\n"


def played(tmp_path: Path, *, rate: str, shift_to_now: bool) -> Chunk:
    path = tmp_path / "r.csv"
    path.write_text(TEXT)
    options = ReplayOptions(csv=path, line="l", machine="m", rate=rate, shift_to_now=shift_to_now)
    recording = read_recording(path)
    (chunk,) = chunks(recording, options, _timed(recording.times_ms, options, start_ms=START))
    return chunk


def stamps(chunk: Chunk) -> list[int]:
    return [json.loads(m.payload)["TimeStamp"] for m in chunk.messages]


def test_shifted_the_stamps_are_the_moments_of_publishing(tmp_path: Path) -> None:
    chunk = played(tmp_path, rate="20x", shift_to_now=True)
    assert stamps(chunk) == [START + ms for ms in (0, 500, 1_500, 1_000, 5_000)]
    # a row that lies before the one above it goes right after it
    assert [m.due_ms - START for m in chunk.messages] == [0, 500, 1_500, 1_500, 5_000]


def test_as_recorded_the_stamps_stay_and_the_pace_holds(tmp_path: Path) -> None:
    chunk = played(tmp_path, rate="1x", shift_to_now=False)
    assert stamps(chunk) == [1_000_000, 1_010_000, 1_030_000, 1_020_000, 1_100_000]
    assert chunk.messages[-1].due_ms == START + 100_000


@pytest.mark.parametrize("shift_to_now", [True, False])
def test_without_a_pace_the_recording_ends_now_or_as_recorded(
    tmp_path: Path,
    shift_to_now: bool,  # noqa: FBT001 - a case
) -> None:
    times = stamps(played(tmp_path, rate="max", shift_to_now=shift_to_now))
    assert max(times) == (START if shift_to_now else 1_100_000)
    assert times[1] - times[0] == 10_000


def test_each_run_of_labelled_rows_is_a_label(tmp_path: Path) -> None:
    labels = [found.label for found in played(tmp_path, rate="max", shift_to_now=False).labels]
    assert [(x.start_ms, x.end_ms, x.ts_ms) for x in labels] == [
        (1_010_000, 1_030_001, (1_010_000, 1_030_000)),
        (1_100_000, 1_100_001, (1_100_000,)),
    ]
    assert {(x.series, x.fault, x.machine) for x in labels} == {("*", "anomaly", "m")}


def test_large_recordings_come_in_chunks_that_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("time,x,y\n" + "".join(f"{i},{i},{-i}\n" for i in range(1_201)))
    options = ReplayOptions(csv=path, line="l", machine="m", rate="max")
    recording = read_recording(path)
    found = list(chunks(recording, options, _timed(recording.times_ms, options, start_ms=START)))
    assert len(found) == 3
    values = [json.loads(m.payload)["SensorValue"] for c in found for m in c.messages]
    assert values == list(itertools.chain.from_iterable((i, -i) for i in range(1_201)))


@pytest.mark.parametrize("rate", ["0x", "fast", "-1x", "20 x", ""])
def test_a_rate_is_a_factor_or_max(rate: str) -> None:
    with pytest.raises(ValidationError, match="'20x' or 'max' is expected"):
        ReplayOptions(csv=Path("r.csv"), line="l", machine="m", rate=rate)


def test_line_and_machine_are_topic_levels() -> None:
    with pytest.raises(ValidationError, match="can not be a topic level"):
        ReplayOptions(csv=Path("r.csv"), line="a/b", machine="m")
