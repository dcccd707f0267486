"""Programs that tests run and that a machine may lack."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def require(program: str, package: str) -> str:
    """The path of a program; skipped where it is missing, on CI a failure."""
    here = Path(sys.executable).parent
    found = shutil.which(program, path=f"{here}:{os.environ.get('PATH', os.defpath)}")
    if found is None:
        reason = f"no {program} on this machine: {package}"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found
