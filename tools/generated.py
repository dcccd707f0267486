"""Files that are generated and checked in: written anew, or looked at whether they are old."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def outdated(folder: Path, pattern: str, texts: Mapping[str, str]) -> list[str]:
    """The files of a folder that differ from their source, are missing, or have none.

    Args:
        folder: where they are.
        pattern: matches all that are generated there, and nothing else.
        texts: name of a file to its text.
    """
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob(pattern)}
    return sorted(name for name in texts | found if texts.get(name) != found.get(name))


def main(
    module: str, description: str | None, folder: Path, pattern: str, texts: Mapping[str, str]
) -> int:
    """Write, or check with `--check`; 1 where a check finds an outdated file."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = outdated(folder, pattern, texts)
    if check:
        for name in old:
            sys.stderr.write(f"{name} is outdated; run: python -m {module}\n")
        return 1 if old else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in old:
        if name in texts:
            (folder / name).write_text(texts[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return 0
