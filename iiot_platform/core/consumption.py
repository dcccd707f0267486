"""What the platform needs of the log no longer: the contract from platform to buffer.

One small file below the home, which the platform replaces as a whole and the buffer reads before
it deletes anything by age, by size or in need. Where it is absent, unreadable or of another log,
nothing counts as consumed and nothing is deleted.
"""

import json
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from iiot_platform.core.clock import now_ms
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

_VERSION: Final = 1


class Consumption(NamedTuple):
    """How far one line was consumed.

    Attributes:
        watermark: offsets below it are in the tables.
        needed_from: the lowest offset that a computation may still want from the log; at most
            the watermark. What lies below belongs to hours that were computed whole after they
            had closed; their readings stand in tables.
    """

    watermark: int
    needed_from: int


def write_consumption(home: Home, lines: Mapping[str, Consumption]) -> None:
    """Replace the file.

    Raises:
        StorageError: the disk refuses; the old file stands.
    """
    body = {
        "version": _VERSION,
        "written_ms": now_ms(),
        "lines": {line: found._asdict() for line, found in lines.items()},
    }
    temporary = home.consumed.with_name(f"{home.consumed.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w") as file:
            json.dump(body, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(home.consumed)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{home.consumed} can not be written: {error}") from error


def read_consumption(home: Home) -> tuple[dict[str, Consumption], str]:
    """What was consumed by line, and why nothing is known where that is so."""
    try:
        body = json.loads(home.consumed.read_bytes())
        if body["version"] != _VERSION:
            return {}, f"{home.consumed} has version {body['version']}, known is {_VERSION}"
        return {
            str(line): Consumption(int(found["watermark"]), int(found["needed_from"]))
            for line, found in body["lines"].items()
        }, ""
    except FileNotFoundError:
        return {}, f"{home.consumed} is not there: the platform has computed nothing here yet"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{home.consumed} can not be read: {error!r}"
