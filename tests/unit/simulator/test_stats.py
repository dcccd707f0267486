import json
from pathlib import Path

import pytest

from simulator.errors import SimulatorError
from simulator.stats import LineState, ScenarioState, SimulatorFiles, Stats


def test_state_survives(tmp_path: Path) -> None:
    files = SimulatorFiles(tmp_path)
    assert files.read_state() == {}
    state = {"default": ScenarioState(5, {"line1": LineState(7)})}
    files.write_state(state)
    assert SimulatorFiles(tmp_path).read_state() == state
    assert [path.name for path in files.folder.iterdir()] == ["state.json"]


def test_a_broken_state_says_what_to_do(tmp_path: Path) -> None:
    files = SimulatorFiles(tmp_path)
    files.state.write_text("{")
    with pytest.raises(SimulatorError, match=r"state\.json can not be read: .*remove it"):
        files.read_state()


def test_counts_are_json(tmp_path: Path) -> None:
    files = SimulatorFiles(tmp_path)
    files.write_stats(Stats(published=3, published_per_line={"l": 3}))
    read = json.loads(files.stats.read_bytes())
    assert (read["published"], read["published_per_line"], read["live_since_ms"]) == (
        3,
        {"l": 3},
        None,
    )


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(SimulatorError, match="can not be made"):
        SimulatorFiles(home)
