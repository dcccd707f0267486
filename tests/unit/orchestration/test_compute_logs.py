import os
import sys
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance
from dagster._core.storage.compute_log_manager import ComputeIOType

from iiot_platform.core.paths import Home
from iiot_platform.orchestration.compute_logs import RedirectingComputeLogs
from iiot_platform.orchestration.instance import prepare_instance

KEY = ["run", "compute_logs", "step"]


@pytest.fixture
def logs(tmp_path: Path) -> RedirectingComputeLogs:
    return RedirectingComputeLogs.from_config_value(None, {"home": str(tmp_path)})


def test_output_of_python_and_below_is_kept_for_the_ui(
    logs: RedirectingComputeLogs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert capfd is not None
    before = psutil.Process().children()
    with logs.capture_logs(KEY):
        print("from python")  # noqa: T201 - this is what is captured
        sys.stdout.flush()
        os.write(sys.stderr.fileno(), b"from below\n")
        assert not logs.is_capture_complete(KEY)
        children = psutil.Process().children()
    assert set(children) <= set(before)
    data = logs.get_log_data(KEY)
    assert data.stdout == b"from python\n"
    assert data.stderr == b"from below\n"
    assert logs.is_capture_complete(KEY)


def test_output_goes_on_as_before_afterwards(
    logs: RedirectingComputeLogs, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="in the step"), logs.capture_logs(KEY):
        raise ValueError("in the step")
    print("after")  # noqa: T201 - this is what must not be captured
    assert capfd.readouterr().out == "after\n"
    assert logs.get_log_data_for_type(KEY, ComputeIOType.STDOUT) == (b"", 0)
    assert logs.is_capture_complete(KEY)


def test_a_second_attempt_of_a_step_is_appended(
    logs: RedirectingComputeLogs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert capfd is not None
    for word in ("one", "two"):
        with logs.capture_logs(KEY):
            print(word)  # noqa: T201 - this is what is captured
    assert logs.get_log_data(KEY).stdout == b"one\ntwo\n"


def test_the_instance_loads_it_from_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_instance(Home(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with DagsterInstance.from_config(str(folder)) as instance:
        manager = instance.compute_log_manager
        assert isinstance(manager, RedirectingComputeLogs)
        path = manager.get_captured_local_path(KEY, "out")
    assert Path(path).is_relative_to(folder)
