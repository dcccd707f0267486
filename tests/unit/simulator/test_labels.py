from pathlib import Path

import numpy as np
import pytest

from simulator.labels import WHOLE_MACHINE, FaultScore, Label, Rows, read_labels, score, series_key


def label(
    fault: str, start: int, end: int, *ts: int, series: str = "a", operation: str = ""
) -> Label:
    return Label(
        line="l",
        machine="m",
        device=series,
        series=series,
        operation=operation,
        kind="signal",
        fault=fault,
        start_ms=start,
        end_ms=end,
        ts_ms=ts or None,
    )


def rows(flags: dict[str, dict[int, int]]) -> Rows:
    flat = [(name, ts, flag) for name, row in flags.items() for ts, flag in row.items()]
    return Rows(
        np.array([name for name, _, _ in flat], dtype=np.str_),
        np.array([ts for _, ts, _ in flat], dtype=np.int64),
        np.array([flag for _, _, flag in flat], dtype=np.int64),
    )


def test_known_answers() -> None:
    data = rows(
        {
            # rows need not be in order
            "l/m/a": {30: 1, 10: 0, 20: 1, 40: 0, 50: 0, 60: 1},
            "l/m/b": {10: 0, 20: 1},
        }
    )
    labels = [label("spike", 20, 21, 20), label("burst", 30, 51, 30, 40, 50, 55)]
    result = score(labels, data)
    assert result.faults == {
        "spike": FaultScore(1, 1, 1, 1, 0),
        "burst": FaultScore(1, 1, 3, 1, 1),
    }
    # a: 10 and 60 are outside of both labels; b: both rows
    assert (result.clean_rows, result.false_alarms) == (4, 2)
    assert result.false_alarm_rate == 0.5
    assert result.faults["burst"].point_recall == pytest.approx(1 / 3)
    assert result.faults["burst"].episode_recall == 1.0


def test_tolerance_forgives_what_follows_a_fault() -> None:
    data = rows({"l/m/a": {10: 0, 20: 0, 30: 1, 40: 1}})
    labels = [label("drift", 10, 21)]
    assert score(labels, data).false_alarms == 2
    assert score(labels, data).faults["drift"].episodes_found == 0
    tolerant = score(labels, data, tolerance_ms=10)
    assert (tolerant.false_alarms, tolerant.faults["drift"].episodes_found) == (1, 1)


def test_episodes_without_a_tested_row_do_not_count() -> None:
    result = score([label("spike", 5, 6, 5)], rows({"l/m/a": {10: 0}}))
    assert result.faults["spike"] == FaultScore(0, 0, 0, 0, 1)
    assert result.faults["spike"].point_recall is None
    assert result.faults["spike"].episode_recall is None


def test_operations_and_series_are_told_apart() -> None:
    data = rows({"l/m/v/ExtendTime": {10: 1}, "l/m/v/RetractTime": {10: 1}})
    result = score([label("slow_valve", 10, 11, 10, series="v", operation="ExtendTime")], data)
    assert result.faults["slow_valve"].points_found == 1
    assert (result.clean_rows, result.false_alarms) == (1, 1)


def test_a_machine_is_found_by_any_of_its_series() -> None:
    data = rows({"l/m/a": {10: 0, 20: 0}, "l/m/b": {10: 1, 20: 0}, "l/n/c": {10: 1}})
    result = score([label("anomaly", 10, 21, 10, 20, series=WHOLE_MACHINE)], data)
    assert result.faults["anomaly"] == FaultScore(1, 1, 2, 1, 0)
    assert (result.clean_rows, result.false_alarms) == (1, 1)


def test_nothing_gives_nothing() -> None:
    result = score([], rows({}))
    assert result.faults == {}
    assert result.false_alarm_rate is None


def test_a_file_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    labels = [label("spike", 1, 2, 1), label("drift", 3, 9)]
    path.write_bytes(b"".join(one.encoded() for one in labels) + b'{"line":"l"')
    assert read_labels(path) == labels


def test_a_series_has_one_key() -> None:
    assert series_key("l", "m", "d.Temperature") == "l/m/d.Temperature"
    assert series_key("l", "m", "v", "ExtendTime") == "l/m/v/ExtendTime"
