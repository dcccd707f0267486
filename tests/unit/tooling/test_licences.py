"""What is shipped may be shipped, and known vulnerabilities are told."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tools.licences import ALLOWED_FOR, ROOT, allowed, licences, shipped


def test_every_dependency_is_under_an_allowed_licence() -> None:
    found = {one["Name"]: one["License"] for one in licences()}
    assert len(found) > 0.9 * len(shipped())  # some are for other systems
    assert {name: text for name, text in found.items() if not allowed(name, text)} == {}


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("UNKNOWN", False),
        (ALLOWED_FOR["asyncua"], False),  # for asyncua alone
    ],
)
def test_what_is_allowed(licence: str, is_allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert allowed("some", licence) is is_allowed


VULNERABLE = {
    "dependencies": [
        {"name": "fine", "version": "1", "vulns": []},
        {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
    ]
}


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (VULNERABLE, 1, "bad 1: PYSEC-1 (mended in 2)"),
        ({"dependencies": VULNERABLE["dependencies"][:1]}, 0, ""),
        (None, 0, "were not looked for: no network"),
    ],
)
def test_a_vulnerability_fails_and_a_missing_network_does_not(
    tmp_path: Path, answer: object, code: int, says: str
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\n'
        + (
            "echo no network; exit 1\n" if answer is None else f"echo '{json.dumps(answer)}' > $2\n"
        ),
        encoding="utf-8",
    )
    program.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "audit"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
