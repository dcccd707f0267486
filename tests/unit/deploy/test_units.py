"""The units for a machine without containers, and their installer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iiot_platform.cli.app import COMMANDS
from iiot_platform.config.plant_file import load_plant
from tests.servers.stack import DEPLOY, compose_file, known_variables

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HIGHEST_EXPOSURE = 2.0
"""Of ten, as `systemd-analyze security` counts; a service without any care has 9.6."""

each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine: its checks are left out")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_there_is_a_unit_for_every_container_of_ours() -> None:
    ours = {n for n, s in compose_file()["services"].items() if s["image"].startswith("iiot-")}
    assert {path.stem.removeprefix("iiot-") for path in UNITS} == ours
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


def staged(script: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [script, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_installing_upgrading_and_taking_away(tmp_path: Path) -> None:
    made_here, root = tmp_path / "bundle", tmp_path / "root"
    made = staged(DEPLOY / "wheels", made_here, "--only-ours")
    assert made.returncode == 0, made.stderr

    done = staged(made_here / "install", "--root", root)
    assert done.returncode == 0, done.stderr
    venv = root / "opt" / "iiot" / "venv"
    assert (venv / "share" / "iiot" / "dagster.yaml").is_file()
    assert list(venv.glob("lib/python*/site-packages/iiot_platform/probe.py"))
    assert (venv / "bin" / "iiot").is_file()
    units = root / "etc" / "systemd" / "system"
    assert {path.name for path in UNITS} <= {path.name for path in units.iterdir()}
    etc = root / "etc" / "iiot"
    assert load_plant(etc / "plant.yaml", {}).line_names == ("line1",)
    token = etc / "secrets" / "metrics_token"
    assert token.parent.stat().st_mode & 0o777 == 0o700
    assert token.stat().st_mode & 0o777 == 0o600

    (etc / "plant.yaml").write_text("lines: [mine]\n", encoding="utf-8")
    (etc / "secrets" / "database_url").write_text("postgresql://x", encoding="utf-8")
    (root / "var" / "lib" / "iiot" / "ledger.sqlite").write_text("data", encoding="utf-8")
    kept, before = token.read_text(encoding="utf-8"), venv.readlink()
    again = staged(made_here / "install", "--root", root)
    assert again.returncode == 0, again.stderr
    assert token.read_text(encoding="utf-8") == kept
    assert (etc / "plant.yaml").read_text(encoding="utf-8") == "lines: [mine]\n"
    assert venv.readlink() != before
    assert (venv.parent / before).is_dir()  # the way back
    drop_in = (units / "iiot-.service.d" / "secrets.conf").read_text(encoding="utf-8")
    assert "Environment=IIOT_DATABASE_URL_FILE=%d/secrets_database_url\n" in drop_in
    assert set(re.findall(r"Environment=(\w+)=", drop_in)) <= known_variables()

    gone = staged(made_here / "install", "--uninstall", "--root", root)
    assert gone.returncode == 0, gone.stderr
    assert not venv.parent.exists()
    assert list(units.iterdir()) == []
    assert (root / "var" / "lib" / "iiot" / "ledger.sqlite").exists()
    assert (etc / "plant.yaml").exists()


def bundle(folder: Path) -> None:
    """A folder to install from that holds no wheels."""
    for name, text in (("requirements.txt", ""), ("PYTHON", "3.1"), ("VERSION", "1")):
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(DEPLOY / "install", folder)
    sums = subprocess.run(
        ["sha256sum", "requirements.txt", "PYTHON", "VERSION"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def test_a_damaged_bundle_is_not_installed(tmp_path: Path) -> None:
    bundle(tmp_path)
    (tmp_path / "requirements.txt").write_text("other\n", encoding="utf-8")
    done = staged(tmp_path / "install", "--root", tmp_path / "root")
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not (tmp_path / "root").exists()


def test_another_python_is_refused(tmp_path: Path) -> None:
    bundle(tmp_path)
    done = staged(tmp_path / "install", "--root", tmp_path / "root")
    assert done.returncode == 1
    assert "the wheels are for Python 3.1" in done.stderr
