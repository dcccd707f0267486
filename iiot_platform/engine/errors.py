"""Errors of the engine."""

from iiot_platform.core.clock import partition_key
from iiot_platform.core.errors import AnalysisError, StorageError


class CommitLostError(StorageError):
    """Another run changed what this one was computed from; nothing was written."""

    def __init__(self, line: str, what: str, expected: object, found: object) -> None:
        super().__init__(
            f"line '{line}': {what} is {found}, computed from {expected}; another run has"
            " committed meanwhile. Nothing was written; the next attempt starts from there."
        )


class HourOpenError(AnalysisError):
    """An hour was to be settled that may still grow."""

    def __init__(self, line: str, hour: int) -> None:
        super().__init__(
            f"line '{line}': hour {partition_key(hour)} has not ended, or its grace is not over;"
            " it is settled after that"
        )


class OtherLayoutError(StorageError):
    """The ledger has the tables of another version of the platform; it was not touched."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the ledger {where} was made by another version of the platform, whose tables differ;"
            " move it away, with the folder 'tables' of the home, and start again: everything is"
            " computed anew from the capture log, closed hours under the settings of today"
        )


class LedgerError(StorageError):
    """The ledger can not be opened, read or written; nothing of what was asked was written."""

    def __init__(self, done: str, where: str, cause: Exception) -> None:
        # the first lines say it; behind them stand statements and links
        reason = str(getattr(cause, "orig", None) or cause).strip()
        super().__init__(f"the ledger {where} can not be {done}: {reason}")
