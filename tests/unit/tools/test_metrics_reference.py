from iiot_platform.metrics import buffer, platform
from tools.metrics import FILE, rendered


def test_the_committed_reference_is_that_of_its_source() -> None:
    assert FILE.read_text(encoding="utf-8") == rendered(), "run: python -m tools.metrics"


def test_every_metric_stands_in_it_once_with_type_and_labels() -> None:
    rows = [line.split(" | ") for line in rendered().splitlines() if line.startswith("| `iiot_")]
    found = {row[0].strip("| `"): (row[1], row[2].replace("`", "")) for row in rows}
    declared = (*buffer.METRICS, *platform.METRICS)
    assert len(rows) == len(declared)
    assert found == {metric.name: (metric.kind, ", ".join(metric.labels)) for metric in declared}


def test_no_label_grows_with_what_is_published() -> None:
    labels = {label for metric in (*buffer.METRICS, *platform.METRICS) for label in metric.labels}
    bounded = {"source", "line", "sink", "operation", "kind", "table", "reason", "status"}
    assert labels == bounded | {"daemon"}
