"""`iiot dagster` becomes the process that was asked for."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from iiot_platform.cli.app import EXIT_CONFIG, main


class BecameError(Exception):
    """In place of the process."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.argv = list(argv)
        self.environ = environ


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def execve(_path: str, argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
        raise BecameError(argv, environ)

    monkeypatch.setattr(os, "execve", execve)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def became(home: Path, *arguments: str) -> BecameError:
    with pytest.raises(BecameError) as found:
        main(["dagster", *arguments], {"IIOT_HOME": str(home)})
    return found.value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["code-server", "--listen", "10.0.0.5:4001"], ["--host", "10.0.0.5", "--port", "4001"]),
        (["webserver", "--listen", "[::1]:3001"], ["--host", "::1", "--port", "3001"]),
        (["pacemaker", "--webserver", "web:3000"], ["--url", "http://web:3000"]),
        (["pool"], ["iiot_platform.orchestration.pool"]),
    ],
)
def test_addresses_reach_the_process(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    argv = became(tmp_path, *arguments).argv
    assert any(argv[i : i + len(words)] == words for i in range(len(argv)))


def test_the_instance_is_made_and_knows_the_code_server(tmp_path: Path) -> None:
    found = became(tmp_path, "daemon", "--code-server", "code:4000")
    assert (tmp_path / "dagster" / "dagster.yaml").is_file()
    workspace = Path(found.argv[found.argv.index("--workspace") + 1])
    assert "host: code, port: 4000" in workspace.read_text(encoding="utf-8")
    assert found.environ["DAGSTER_HOME"] == str(tmp_path / "dagster")


@pytest.mark.parametrize("address", ["4000", "code:", "code:70000", ":4000", "code:0"])
def test_a_wrong_address_is_told(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dagster", "code-server", "--listen", address], {"IIOT_HOME": str(tmp_path)})
    assert ended.value.code == EXIT_CONFIG
    assert f"got the address '{address}'" in capsys.readouterr().err


PROGRAM = """
import os, signal, sys
from iiot_platform.cli.dagster_process import _become
from iiot_platform.orchestration.processes import Command

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for what runs in the background
told = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
_become(Command("told", [sys.executable, "-c", told], dict(os.environ)))
"""


def test_what_takes_our_place_can_be_interrupted_and_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
