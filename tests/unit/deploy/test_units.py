"""The units for a machine without containers, and their installer."""

import re
import subprocess
from pathlib import Path

import pytest

from iiot_platform.cli.app import COMMANDS
from tests.servers.programs import require
from tests.servers.stack import DEPLOY, FOR_GRAFANA, compose_file, known_variables

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HIGHEST_EXPOSURE = 2.0
"""Of ten, as `systemd-analyze security` counts; a service without any care has 9.6."""

each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    program = require("systemd-analyze", "apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_there_is_a_unit_for_every_container_of_ours() -> None:
    ours = {n for n, s in compose_file()["services"].items() if s["image"].startswith("iiot-")}
    assert {path.stem.removeprefix("iiot-") for path in UNITS} == ours - FOR_GRAFANA
    target = (DEPLOY / "systemd" / "iiot.target").read_text(encoding="utf-8")
    wanted = re.search(r"^Wants=(.*)$", target, re.MULTILINE)
    assert wanted is not None
    assert set(wanted[1].split()) == {path.name for path in UNITS}


@each_unit
def test_a_unit_starts_what_the_container_starts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=/opt/iiot/venv/bin/iiot (.*)$", text, re.MULTILINE)
    assert command is not None
    words = command[1].split()
    there = compose_file()["services"][path.stem.removeprefix("iiot-")]["command"]
    # on one machine every address is the default one
    wanted = [w for i, w in enumerate(there) if w not in {"--listen", "--code-server"}]
    wanted = [w for w in wanted if ":" not in w and w != "--webserver"]
    assert words == wanted
    assert words[0] in COMMANDS
    variables = set(
        re.findall(r"(?:^Environment=| )((?:IIOT|INFLUX)_[A-Z_]+)=", text, re.MULTILINE)
    )
    assert variables <= known_variables()


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(
            text.replace("/opt/iiot/venv/bin/iiot", "/bin/true"), encoding="utf-8"
        )
    done = analyze("verify", "--man=no", *sorted(tmp_path.iterdir()))
    ours = [row for row in done.stderr.splitlines() if "iiot" in row]
    assert ours == []


@each_unit
def test_a_unit_may_do_little(path: Path) -> None:
    done = analyze("security", "--offline=yes", path)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if level is None:
        pytest.skip(f"this systemd can not look at files: {done.stderr[:200]}")
    assert float(level[1]) <= HIGHEST_EXPOSURE
