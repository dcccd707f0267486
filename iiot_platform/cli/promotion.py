"""A candidate becomes the plant file; the old one is kept beside it."""

import difflib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from iiot_platform.core.clock import from_ms
from iiot_platform.core.errors import StorageError


def difference(plant_path: Path, candidate_path: Path) -> list[str]:
    """What changes in the plant file, as lines of a unified diff."""
    old, new = (
        path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for path in (plant_path, candidate_path)
    )
    return list(
        difflib.unified_diff(old, new, str(plant_path), str(candidate_path), lineterm="", n=2)
    )


def put_in_place(
    plant_path: Path, candidate_path: Path, now_ms: int, check: Callable[[Path], None]
) -> Path | None:
    """Makes the candidate the plant file, at no moment a partial one.

    Args:
        plant_path: the plant file; one that is a link stays a link.
        candidate_path: what it is to become.
        now_ms: goes into the name of the old file that is kept.
        check: given a copy of the candidate in the folder of the plant file, which its relative
            paths are then read from; what it raises leaves everything as it was.

    Returns:
        Where the old file was kept; None where there was none.

    Raises:
        StorageError: the folder of the plant file can not be written.
    """
    try:
        target = plant_path.resolve()
        mode = target.stat().st_mode if target.exists() else 0o644
        copy = _write(target.parent, candidate_path.read_bytes(), mode)
        try:
            check(copy)
            kept = _keep(target, now_ms) if target.exists() else None
            _rename(copy, target)
        finally:
            copy.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"'{candidate_path}' can not become '{plant_path}': {error.strerror}; the plant file"
            " is as it was"
        ) from error
    return kept


def _keep(target: Path, now_ms: int) -> Path:
    stamp = from_ms(now_ms).strftime("%Y%m%dT%H%M%SZ")
    endings = ("", *(f"-{i}" for i in range(2, 1_000)))
    names = (target.with_name(f"{target.name}.{stamp}{ending}") for ending in endings)
    kept = next(name for name in names if not name.exists())
    _rename(_write(target.parent, target.read_bytes(), target.stat().st_mode), kept)
    return kept


def _write(folder: Path, body: bytes, mode: int) -> Path:
    """A new durable file of no lasting name."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".yaml.tmp", delete=False) as file:
        path = Path(file.name)
        try:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            path.chmod(stat.S_IMODE(mode))
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path


def _rename(path: Path, target: Path) -> None:
    path.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
