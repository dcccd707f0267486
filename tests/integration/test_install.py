"""The installer for a machine without containers, staged below a folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from iiot_platform.config.plant_file import load_plant
from tests.servers.stack import DEPLOY, known_variables

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


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
