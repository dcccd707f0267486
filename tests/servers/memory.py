"""A folder in memory for what tests write: on a disk they wait for it longer than they compute."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import psutil

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where Linux has it; below it pytest takes care
_ENOUGH_BYTES: Final = 4 * 2**30


def keep_files_in_memory() -> None:
    """Takes it for all temporary files, of this process and its children, where there is room.

    Whoever has set TMPDIR has decided otherwise.
    """
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(_FOLDER)
        tempfile.tempdir = None


def _has_room() -> bool:
    if not os.access(_FOLDER, os.W_OK) or os.statvfs(_FOLDER).f_flag & os.ST_NOEXEC:
        return False
    free = min(shutil.disk_usage(_FOLDER).free, psutil.virtual_memory().available)
    return free >= _ENOUGH_BYTES
