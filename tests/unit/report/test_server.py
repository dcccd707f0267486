import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from iiot_platform.core.paths import Home
from iiot_platform.report.server import LivePage, PortError, ReportServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReportServer]:
    with ReportServer(LivePage(Home(tmp_path), last_s=60), port=0) as running:
        yield running


def get(server: ReportServer, path: str = "/", host: str | None = None) -> tuple[int, str]:
    address = server.url.removeprefix("http://").removesuffix("/")
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_home_without_tables_is_said_and_tried_again(server: ReportServer) -> None:
    status, page = get(server)
    assert status == 200
    assert "No report yet" in page
    assert 'data-refresh="5000"' in page


def test_only_the_page_is_there_and_only_under_its_own_address(server: ReportServer) -> None:
    assert get(server, "/?x=1")[0] == 200
    assert get(server, "/ledger.sqlite")[0] == 404
    assert get(server, "/../../etc/passwd")[0] == 404
    assert get(server, host="localhost:1234")[0] == 200
    assert get(server, host="evil.example:80")[0] == 403


def test_it_listens_on_loopback_alone(server: ReportServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")


def test_a_taken_port_is_told(server: ReportServer, tmp_path: Path) -> None:
    port = int(server.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(PortError, match=f"127.0.0.1:{port}: .*--port"):
        ReportServer(LivePage(Home(tmp_path), last_s=60), port=port)


def test_a_page_that_takes_long_is_made_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    made = []

    def slow() -> str:
        clock[0] += 10.0
        made.append(clock[0])
        return "page"

    monkeypatch.setattr("iiot_platform.report.server.monotonic", lambda: clock[0])
    page = LivePage(Home(tmp_path), last_s=60)
    monkeypatch.setattr(page, "_page", slow)
    for moment in range(100):
        clock[0] = max(clock[0], float(moment))
        page.content()

    assert made == [10.0, 60.0]


def test_many_who_look_make_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = LivePage(Home(tmp_path), last_s=60, refresh_s=3_600)
    first = page.content()
    monkeypatch.setattr(page, "_page", lambda: pytest.fail("made again"))
    assert page.content() is first
