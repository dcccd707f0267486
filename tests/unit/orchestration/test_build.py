import sys
from pathlib import Path

import pytest
from dagster import AssetKey, AssetsDefinition, BackfillPolicy, DagsterInstance, Definitions
from pydantic import SecretStr

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import InfluxSettings, PostgresSettings, Settings
from iiot_platform.core import schema
from iiot_platform.core.pages import asset_prefix, dagster_name
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.build import build_definitions
from iiot_platform.orchestration.naming import ASSET_TABLES

LINES = ["line1", "Línea 2 (a.b)", "class", "1%"]


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    settings = Settings(
        home=Home(tmp_path / "var"), influx=InfluxSettings(url="http://127.0.0.1:1")
    )
    return build_definitions(settings, Plant.model_validate({"lines": LINES}))


def test_every_line_has_its_group_of_assets_and_its_jobs(definitions: Definitions) -> None:
    Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    for line in LINES:
        safe, prefix = dagster_name(line), asset_prefix(line)
        keys = {key for key in graph.get_all_asset_keys() if key.path[0] == prefix}
        assert {key.path[1] for key in keys} == {"raw", "influxdb", *ASSET_TABLES}
        assert {graph.get(key).group_name for key in keys} == {safe}
        assert {graph.get(key).metadata["line"] for key in keys} == {line}
        assert not graph.get(AssetKey([prefix, "raw"])).is_executable
        assert graph.get(AssetKey([prefix, "signals"])).parent_keys == {AssetKey([prefix, "raw"])}
        children = graph.get(AssetKey([prefix, "signals"])).child_keys
        assert children == {AssetKey([prefix, "influxdb"])}
        checks = {key for key in graph.asset_check_keys if key.asset_key.path[0] == prefix}
        assert {(key.asset_key.path[1], key.name) for key in checks} == {
            ("influxdb", "delivery"),
            *(("readings", n) for n in ("completeness", "lag_within_bound", "live_equals_rerun")),
        }
        for job in (f"live_{safe}", f"rerun_{safe}"):
            assert definitions.resolve_job_def(job).tags["iiot/line"] == line


def test_nothing_is_opened_or_written_while_loading(
    definitions: Definitions, tmp_path: Path
) -> None:
    definitions.get_repository_def()
    assert list(tmp_path.iterdir()) == []


def test_the_database_is_an_asset_only_where_there_is_one(tmp_path: Path) -> None:
    plain = build_definitions(
        Settings(home=Home(tmp_path)), Plant.model_validate({"lines": ["line1"]})
    )
    keys = plain.resolve_asset_graph().get_all_asset_keys()
    assert not {key.path[1] for key in keys} & {"influxdb", "postgresql"}


def test_each_database_that_is_configured_is_an_asset_behind_the_tables(tmp_path: Path) -> None:
    url = SecretStr("postgresql+psycopg2://me:pw@127.0.0.1:1/db")
    settings = Settings(
        home=Home(tmp_path),
        influx=InfluxSettings(url="http://127.0.0.1:1"),
        postgres=PostgresSettings(url=url),
    )
    built = build_definitions(settings, Plant.model_validate({"lines": ["line1"]}))
    Definitions.validate_loadable(built)
    sinks = {AssetKey(["line1", "influxdb"]), AssetKey(["line1", "postgresql"])}
    assert built.resolve_asset_graph().get(AssetKey(["line1", "signals"])).child_keys == sinks
    checks = built.resolve_asset_graph().asset_check_keys
    assert {key.asset_key for key in checks if key.name == "delivery"} == sinks
    assert list(tmp_path.iterdir()) == []


def test_tables_are_hours_that_one_run_can_fill(definitions: Definitions) -> None:
    (tables,) = [
        asset
        for asset in definitions.assets or ()
        if isinstance(asset, AssetsDefinition) and asset.op.name == "tables_line1"
    ]
    assert tables.backfill_policy == BackfillPolicy.single_run()
    assert tables.can_subset
    hours = tables.partitions_def
    assert hours is not None
    assert hours.get_first_partition_key() == "2000-01-01-00:00"


def test_tables_say_their_columns_with_units(definitions: Definitions) -> None:
    node = definitions.resolve_asset_graph().get(AssetKey(["line1", "electrical_cycles"]))
    columns = {column.name: column for column in node.metadata["dagster/column_schema"].columns}
    assert list(columns) == list(schema.ELECTRICAL_CYCLES.arrow.names)
    assert "[A·s]" in (columns["el_current_integral_ph1"].description or "")
    assert columns["el_current_unbalance"].constraints.nullable
    assert "| `el_current_unbalance` | % |" in (node.description or "")


def test_the_module_loads_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text("lines: [line1]\n", encoding="utf-8")
    monkeypatch.setenv("IIOT_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("IIOT_PLANT", str(plant))
    monkeypatch.delenv("INFLUX_URL", raising=False)
    monkeypatch.delitem(sys.modules, "iiot_platform.definitions", raising=False)
    from iiot_platform.definitions import defs  # noqa: PLC0415 - reads the environment

    assert defs.resolve_job_def("live_line1")


def test_an_hour_must_be_chosen(definitions: Definitions) -> None:
    tables = definitions.resolve_implicit_job_def_def_for_assets([AssetKey(["line1", "signals"])])
    assert tables is not None
    with DagsterInstance.ephemeral() as instance:
        result = tables.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert "choose partitions" in str(result.all_events)
