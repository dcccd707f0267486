import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import RecordingError
from simulator.recording import read_recording


def written(folder: Path, text: str) -> Path:
    path = folder / "recording.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    text = "datetime;Flow RateRMS;Current;anomaly\n2020-03-01 15:44:06;76.0197;1.5;0.0\n"
    recording = read_recording(written(tmp_path, text.replace(";", delimiter)))
    assert recording.signals == {"Flow RateRMS": [76.0197], "Current": [1.5]}
    assert recording.labels == {"anomaly": [False]}
    assert recording.times_ms == [1_583_077_446_000]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-03-01 15:44:06.250", 1_583_077_446_250),
        ("2020-03-01T15:44:06+01:00", 1_583_073_846_000),
        ("1583077446", 1_583_077_446_000),
        ("1583077446.5", 1_583_077_446_500),
        ("1583077446250", 1_583_077_446_250),
    ],
)
def test_times(tmp_path: Path, text: str, expected: int) -> None:
    assert read_recording(written(tmp_path, f"t,x\n{text},1\n")).times_ms == [expected]


def test_naive_times_may_have_a_zone(tmp_path: Path) -> None:
    path = written(tmp_path, "t,x\n2020-03-01 15:44:06,1\n")
    assert read_recording(path, timezone="Europe/Berlin").times_ms == [1_583_073_846_000]
    with pytest.raises(RecordingError, match="'Mars/One' is no time zone"):
        read_recording(path, timezone="Mars/One")


def test_cells_without_a_number_are_left_out_and_counted(tmp_path: Path) -> None:
    text = "time,x,note\n1,1.5,ok\n2,,ok\n3,NaN,ok\n4,inf,ok\n5,1_0,ok\n6,-2e3,ok\n"
    recording = read_recording(written(tmp_path, text))
    assert recording.signals == {"x": [1.5, None, None, None, None, -2000.0]}
    assert recording.skipped == 4


def test_illegal_characters_are_replaced_visibly(tmp_path: Path) -> None:
    recording = read_recording(written(tmp_path, "time,v m/s,a+b,#1,ok name\n1,1,2,3,4\n"))
    assert list(recording.signals) == ["v m%2Fs", "a%2Bb", "%231", "ok name"]
    assert recording.renamed == {"v m/s": "v m%2Fs", "a+b": "a%2Bb", "#1": "%231"}


def test_label_columns_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "time,x,anomaly,Fault\n1,1,0,1\n")
    recording = read_recording(path, label_columns=["fault"])
    assert recording.labels == {"Fault": [True]}
    assert set(recording.signals) == {"x", "anomaly"}


def test_a_decimal_comma_can_be_read(tmp_path: Path) -> None:
    recording = read_recording(written(tmp_path, "time;x\n1;1,25\n"), decimal_comma=True)
    assert recording.signals == {"x": [1.25]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,x\n", "holds no rows"),
        ("time,x\n1,2\n1,2,3\n", r"row 3: has 3 cells, the header has 2"),
        ("time,x\nyesterday,2\n", r"row 2: 'yesterday' is no time; ISO 8601"),
        ("time,x,x\n1,2,3\n", "'x' stands twice"),
        ("time,\n1,2\n", "column 2 has no name"),
        ("time,x\n1,a\n", "no numeric column"),
    ],
)
def test_errors_name_file_and_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecordingError, match=rf"recording\.csv: .*{message}|{message}"):
        read_recording(written(tmp_path, text))


def test_errors_of_columns_and_files(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="did you mean 'time'"):
        read_recording(written(tmp_path, "time,x\n1,2\n"), time_column="tim")
    with pytest.raises(RecordingError, match="can not be read"):
        read_recording(tmp_path / "none.csv")


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_bit_for_bit(
    value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("r"), f"time,x\n1,{value!r}\n")
    (read,) = read_recording(path).signals["x"]
    assert read is not None
    assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))
