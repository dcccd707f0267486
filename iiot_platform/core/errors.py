"""One error family; each class takes the culprits as data and builds its message.

A message says what happened, where, what was got and expected, and what to do next.
"""

import difflib
from collections.abc import Iterable


class PlatformError(Exception):
    """Base of every error that this platform raises on purpose."""


class ConfigError(PlatformError):
    """A plant file or a setting is wrong."""


class DecodeError(PlatformError):
    """A payload can not be decoded; `reason` is the quarantine reason."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class StorageError(PlatformError):
    """The capture log, a table file or the ledger can not be read or written."""


class SourceError(PlatformError):
    """A broker or server that we read from refuses or fails."""


class SinkError(PlatformError):
    """A database that we write to refuses or fails."""


class AnalysisError(PlatformError):
    """An analysis was asked for something that it can not compute."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that suggests the nearest valid name, or lists what is valid."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid are: {', '.join(options)}" if options else "nothing is valid here"
