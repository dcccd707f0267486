from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iiot_platform.demo.children import Child, Command
from iiot_platform.demo.installation import DemoInstallation, DemoOptions
from iiot_platform.demo.pages import Pages
from iiot_platform.demo.ports import PortClaims


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[DemoInstallation]:
    with PortClaims() as claims:
        yield DemoInstallation.prepare({"IIOT_HOME": str(tmp_path)}, DemoOptions(), claims)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], Child]:
    monkeypatch.setattr(Child, "start", lambda _self: None)
    return lambda command: Child(command, tmp_path / "logs", lambda _text: None)


def test_they_start_once_and_with_the_first_results(
    demo: DemoInstallation, make: Callable[[Command], Child]
) -> None:
    pages = Pages(demo, make)
    pages.advance(computed=False)
    assert pages.children() == []
    pages.advance(computed=True)
    started = list(pages.children())
    pages.advance(computed=True)
    assert pages.children() == started
    assert [child.command.name for child in started] == ["report", "metrics", "alerts"]


def test_addresses_are_those_that_the_processes_are_given(
    demo: DemoInstallation, make: Callable[[Command], Child]
) -> None:
    pages = Pages(demo, make)
    pages.advance(computed=True)
    report, metrics, _ = (child.command for child in pages.children())
    shown = pages.addresses()
    assert f"http://127.0.0.1:{report.argv[-1]}/ " in shown
    assert f"http://{metrics.environ['IIOT_METRICS']}/metrics" in shown
    assert f"http://{demo.buffer().environ['IIOT_BUFFER_METRICS']}/metrics" in shown
