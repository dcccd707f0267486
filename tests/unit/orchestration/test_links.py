"""What leads from an asset to its rows."""

import json
import shlex
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import hour_from_key, hour_start_ms
from iiot_platform.orchestration.links import DASHBOARDS, Links
from iiot_platform.orchestration.naming import ASSET_TABLES, line_names

(NAMES,) = line_names(["Línea 2 (Nord)"])
HOUR = hour_from_key("2026-11-22-09:00")
BOARDS = Path(__file__).parents[3] / "deploy/grafana/dashboards"


def test_without_servers_there_is_a_command() -> None:
    found = Links.of(Settings()).hour(NAMES, "signals", HOUR)
    assert found.keys() == {"show_rows", "explain"}
    assert Links.of(Settings()).hour(NAMES, "readings", HOUR).keys() == {"show_rows"}
    assert shlex.split(found["show_rows"]) == [
        *("iiot", "tables", "--line", "Línea 2 (Nord)", "--table", "signals"),
        *("--hour", "2026-11-22-09:00"),
    ]


def test_an_hour_leads_to_its_dashboard_and_its_time() -> None:
    links = Links.of(Settings(grafana_url="http://g:3000/x", report_url="http://r:8080"))
    url = urlsplit(links.hour(NAMES, "signals", HOUR)["grafana"].url)
    assert (url.netloc, url.path) == ("g:3000", "/x/d/iiot-signals")
    assert parse_qs(url.query) == {
        "var-line": ["Línea 2 (Nord)"],
        "from": [str(hour_start_ms(HOUR))],
        "to": [str(hour_start_ms(HOUR + 1))],
    }
    assert links.table(NAMES, "signals")["report"].url == "http://r:8080"
    assert "grafana" not in links.hour(NAMES, "gaps", HOUR)


@pytest.mark.parametrize(("table", "uid"), DASHBOARDS.items())
def test_the_dashboards_are_there(table: str, uid: str) -> None:
    assert table in ASSET_TABLES
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in BOARDS.glob("*.json")]
    (board,) = (board for board in boards if board["uid"] == uid)
    assert "line" in {variable["name"] for variable in board["templating"]["list"]}
