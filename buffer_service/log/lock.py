"""The lock that makes one process the only writer of a capture folder."""

import contextlib
import fcntl
import os
from pathlib import Path

from iiot_platform.core.errors import StorageError


class WriterLock:
    """Held from construction to `release`; the kernel lets go when the process dies.

    Raises:
        StorageError: another process writes this capture folder.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StorageError(
                f"{path}: process {holder} is already writing this capture log, and there can "
                "be one writer only; stop it, or give this buffer another home"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next writer in."""
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1
