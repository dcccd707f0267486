import json
import re

import pytest
import yaml

from iiot_platform.metrics import buffer, platform
from tests.reference.grafana_queries import data_panels
from tools.dashboards import promql
from tools.dashboards.__main__ import FOLDER, rendered

BOARD = json.loads(rendered()["platform.json"])
TARGETS = [target for panel in data_panels(BOARD) for target in panel["targets"]]


def test_it_uses_the_provisioned_data_source() -> None:
    file = FOLDER.parent / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    assert source["uid"] == promql.DATASOURCE_UID
    assert {target["datasource"]["uid"] for target in TARGETS} == {promql.DATASOURCE_UID}
    assert {panel["datasource"]["uid"] for panel in data_panels(BOARD)} == {promql.DATASOURCE_UID}


def test_what_has_lines_is_chosen_by_the_variable() -> None:
    with_lines = [m.name for m in (*buffer.METRICS, *platform.METRICS) if "line" in m.labels]
    for target in TARGETS:
        for name in with_lines:
            if re.search(rf"\b{name}(_bucket|_count|_sum)?\b", target["expr"]):
                assert 'line=~"$line"' in target["expr"]


def test_queries_of_a_panel_have_their_own_names() -> None:
    for panel in data_panels(BOARD):
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_labels_and_parts_that_a_metric_lacks_can_not_be_written() -> None:
    with pytest.raises(KeyError, match="has no label 'line'"):
        promql.total(buffer.HOT_ROWS, "line")
    with pytest.raises(KeyError, match="has no label 'reson'"):
        promql.rise(platform.QUARANTINED, reson="x")
    with pytest.raises(ValueError, match="is a histogram"):
        promql.series(platform.BATCH_SECONDS)
    with pytest.raises(ValueError, match="is a counter"):
        promql.series(platform.BATCHES, suffix="_count")
