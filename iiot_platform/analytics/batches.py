"""What goes in and out of every analysis: batches of columns, and states as bytes."""

from typing import Any, TypeVar

import msgspec

from iiot_platform.core.errors import AnalysisError

S = TypeVar("S", bound=msgspec.Struct)


def encode(state: msgspec.Struct) -> bytes:
    """A state as MessagePack; floats are exact."""
    return msgspec.msgpack.encode(state)


def decode(data: bytes, kind: type[S]) -> S:
    """The state of this kind that `encode` wrote.

    Raises:
        AnalysisError: the bytes are damaged or hold another kind of state.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AnalysisError(
            f"{len(data)} bytes are no {kind.__name__}: {error}; recompute from the last "
            "checkpoint that can be read, or start the series anew"
        ) from error


def require_equal_length(what: str, **columns: Any) -> None:
    """Refuse a batch whose columns differ in length.

    Raises:
        AnalysisError: they do.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise AnalysisError(f"the columns of a batch of {what} differ in length: {got}; align them")
