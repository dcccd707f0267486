"""The name of the code that computes."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def code_version() -> str:
    """Names the code that computes: a hash of the sources of engine, analytics and core."""
    digest = hashlib.blake2b(digest_size=6)
    root = Path(__file__).resolve().parent.parent
    for package in ("analytics", "core", "engine"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
