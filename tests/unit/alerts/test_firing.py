import sqlite3
from pathlib import Path

import pytest

from iiot_platform.alerts.evaluation import Alert, LineState
from iiot_platform.alerts.firing import standing
from iiot_platform.alerts.lifecycle import AlertKey
from iiot_platform.alerts.store import STATUS_SCOPE, TABLES_SCOPE, AlertStore
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home


def alert(series: str, fired_ms: int, resolved_ms: int | None = None) -> Alert:
    return Alert(
        key=AlertKey("line1", "anomaly_ratio", series),
        state="firing" if resolved_ms is None else "resolved",
        since_ms=fired_ms,
        fired_ms=fired_ms,
        value=0.5,
        peak=0.6,
        threshold=0.2,
        clear=0.1,
        severity="warning",
        resolved_ms=resolved_ms,
    )


def test_what_fires_stands_in_the_order_of_its_beginning(tmp_path: Path) -> None:
    path = Home(tmp_path).alerts
    assert standing(path) is None
    later, first, over = alert("m/a", 20), alert("m/b", 10), alert("m/c", 5, 9)
    with AlertStore(path) as store:
        assert standing(path) is None
        store.save("line1", TABLES_SCOPE, LineState(30, firing=(later,), recent=(over,)), [], 30)
        store.save("line1", STATUS_SCOPE, LineState(30, firing=(first,)), [], 30)
        found = standing(path)  # while another connection holds the file
    assert found == ((first, later), (over,))
    assert standing(path) == found


def test_a_damaged_file_is_told_and_none_is_written(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite"
    path.write_bytes(b"no database" * 200)
    with pytest.raises(StorageError, match="can not be used"):
        standing(path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE states (line, scope, body)")
        connection.execute("INSERT INTO states VALUES ('l', 'tables', x'7b')")
    connection.close()
    with pytest.raises(StorageError, match="can not be understood"):
        standing(path)
