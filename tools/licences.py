"""Licences of what is shipped: `python -m tools.licences` lists them, fails at one not allowed."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache Software License",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "3-Clause BSD License",
        "BSD",
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC License (ISCL)",
        "MIT",
        "MIT License",
        "MIT-0",
        "PSF-2.0",
        "Python Software Foundation License",
        "Zlib",
        # copyleft by file: we change none of its files
        "MPL-2.0",
        "Mozilla Public License 2.0 (MPL 2.0)",
    }
)
"""Licences under which a dependency may be shipped beside Apache-2.0."""

ALLOWED_FOR: Final = {
    # libraries that are imported as they are and can be replaced by their users
    "asyncua": "GNU Lesser General Public License v3 or later (LGPLv3+)",
    "psycopg2-binary": "GNU Library or Lesser General Public License (LGPL)",
}
"""Packages that are shipped under another licence, and which."""


def shipped() -> frozenset[str]:
    """The names of `requirements.lock`, in one spelling."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return frozenset(map(_name, re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)))


def licences() -> list[dict[str, str]]:
    """Name, version and licence of every package that is shipped and installed here."""
    done = subprocess.run(  # noqa: S603 - our own command line
        [
            *(sys.executable, "-m", "piplicenses"),
            *("--python", sys.executable, "--format", "json", "--from", "mixed"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    names = shipped()
    return [one for one in json.loads(done.stdout) if _name(one["Name"]) in names]


def allowed(name: str, licence: str) -> bool:
    """True where one of the alternatives is made of allowed licences alone."""
    if ALLOWED_FOR.get(_name(name)) == licence:
        return True
    alternatives = re.split(r" OR |; ", licence)
    return any(set(one.split(" AND ")) <= ALLOWED for one in alternatives)


def main() -> int:
    """List, and say what is not allowed."""
    found = licences()
    writer = csv.DictWriter(sys.stdout, ["Name", "Version", "License"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(found)
    refused = [f"{one['Name']}: {one['License']}" for one in found if not _fine(one)]
    for text in refused:
        sys.stderr.write(f"error: licence not allowed: {text} (tools/licences.py)\n")
    return int(bool(refused))


def _fine(one: dict[str, str]) -> bool:
    return allowed(one["Name"], one["License"])


def _name(text: str) -> str:
    return text.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    sys.exit(main())
