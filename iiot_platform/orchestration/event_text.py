"""Dagster's events as they are stored: compressed, since nearly all of their text is the same.

An event of 4 kB takes a tenth. Whatever reads or writes an event goes through the type of its
column, which is exchanged here; rows that were stored as plain text are read as before.
"""

import base64
import zlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)

_MARK: Final = "z1:"
"""Begins a text that was compressed with the words below; they must stay as they are for ever."""
_WORDS: Final = Path(__file__).with_name("event_words.txt")
_WORTH: Final = 256
_RAW: Final = -15
"""Deflate without a header: the mark says what it is."""


@cache
def _words() -> bytes:
    """What events have in common, the most frequent last."""
    return _WORDS.read_bytes()


def packed(text: str) -> str:
    """A text as it is stored."""
    if len(text) < _WORTH:
        return text
    press = zlib.compressobj(6, zlib.DEFLATED, _RAW, zdict=_words())
    body = press.compress(text.encode()) + press.flush()
    return _MARK + base64.b85encode(body).decode()


def unpacked(stored: str) -> str:
    """The text that was stored; JSON begins with a brace, never with the mark."""
    if not stored.startswith(_MARK):
        return stored
    body = base64.b85decode(stored[len(_MARK) :])
    return zlib.decompressobj(_RAW, zdict=_words()).decompress(body).decode()


class PackedText(sa.types.TypeDecorator[str]):
    """Text that is compressed in the database alone."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """What is stored."""
        del dialect
        return None if value is None else packed(value)

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        """What was stored."""
        del dialect
        return None if value is None else unpacked(value)


def pack_events() -> None:
    """Lets every storage of this process keep events compressed; reading needs it too."""
    SqlEventLogStorageTable.c.event.type = PackedText()
    AssetCheckExecutionsTable.c.evaluation_event.type = PackedText()
