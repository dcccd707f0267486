"""Events are stored compressed, and what was stored is read for ever."""

import hashlib
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from dagster import AssetKey, AssetMaterialization, DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.orchestration import event_text
from iiot_platform.orchestration.event_text import packed, unpacked

_WORDS_SHA256 = "dd556ce8d89ff43a2b092cf789ac1fc9c5ffabf4e82b224f24b0de709c691076"
KEY = AssetKey(["line", "readings"])


@given(st.text(max_size=2_000).map(lambda text: json.dumps({"text": text}, ensure_ascii=False)))
def test_every_text_comes_back(text: str) -> None:
    assert unpacked(packed(text)) == text


def test_the_words_never_change() -> None:
    """Otherwise nothing that was stored before could be read."""
    assert hashlib.sha256(event_text._words()).hexdigest() == _WORDS_SHA256


def test_what_was_stored_once_is_read() -> None:
    assert unpacked("z1:tA>n=08JSMM1xuY") == '{"rows": ' + "1" * 300 + "}"
    assert unpacked('{"__class__": "EventLogEntry"}') == '{"__class__": "EventLogEntry"}'


@pytest.mark.usefixtures("storage_kind")
def test_an_event_takes_a_fraction_and_reads_as_it_was(tmp_path: Path) -> None:
    storage = {
        "module": "iiot_platform.orchestration.storage",
        "class": "InstanceStorage",
        "config": {"base_dir": str(tmp_path)},
    }
    config = {"storage": {"custom": storage}, "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    metadata = {f"figure_{number}": number for number in range(20)}
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(AssetMaterialization(KEY, metadata=metadata))
        read = instance.get_latest_materialization_event(KEY)
        assert read is not None
        assert read.asset_materialization is not None
        assert read.asset_materialization.metadata["figure_7"].value == 7
        events = instance.event_log_storage
        assert isinstance(events, SqlEventLogStorage)
        column = sa.type_coerce(SqlEventLogStorageTable.c.event, sa.Text)
        with events.index_connection() as connection:
            (stored,) = connection.execute(sa.select(column)).scalars()
    assert stored.startswith("z1:")
    assert len(stored) < len(unpacked(stored)) / 4
