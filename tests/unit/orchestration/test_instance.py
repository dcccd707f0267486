from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.run_coordinator.sync_in_memory_run_coordinator import (
    SyncInMemoryRunCoordinator,
)

from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import (
    CONFIG_FOLDER,
    LOCATION,
    InstanceConfigError,
    prepare_instance,
    write_workspace,
)


def test_the_instance_starts_runs_at_once_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_instance(Home(tmp_path))
    assert folder == Home(tmp_path).dagster
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with DagsterInstance.from_config(str(folder)) as instance:
        assert isinstance(instance.run_coordinator, SyncInMemoryRunCoordinator)
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert not instance.run_retries_enabled


def test_a_stale_copy_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = prepare_instance(Home(tmp_path))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: true}\n", encoding="utf-8")
    prepare_instance(Home(tmp_path))
    assert (folder / "dagster.yaml").read_text() == (CONFIG_FOLDER / "dagster.yaml").read_text()
    assert [path.name for path in folder.iterdir()] == ["dagster.yaml"]


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstanceConfigError, match=r"nowhere/dagster\.yaml.*checkout"):
        prepare_instance(Home(tmp_path), config=tmp_path / "nowhere")


def test_both_workspaces_name_the_same_location(tmp_path: Path) -> None:
    home = Home(tmp_path)
    prepare_instance(home)
    own = yaml.safe_load(write_workspace(home, 4266).read_text())["load_from"][0]["grpc_server"]
    assert own == {"host": "127.0.0.1", "port": 4266, "location_name": LOCATION}
    shipped = yaml.safe_load((CONFIG_FOLDER / "workspace.yaml").read_text())["load_from"][0]
    assert shipped["python_module"] == {
        "module_name": "iiot_platform.definitions",
        "location_name": LOCATION,
    }
