"""Errors of the engine."""

from iiot_platform.core.errors import StorageError


class CommitLostError(StorageError):
    """Another run changed what this one was computed from; nothing was written."""

    def __init__(self, line: str, what: str, expected: object, found: object) -> None:
        super().__init__(
            f"line '{line}': {what} is {found}, computed from {expected}; another run has"
            " committed meanwhile. Nothing was written; the next attempt starts from there."
        )


class LedgerError(StorageError):
    """The ledger can not be read or written."""
