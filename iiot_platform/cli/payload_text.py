"""Payloads as a terminal can show them: text where it is text, else hex; nothing that acts."""

from typing import Final

_LONGEST: Final = 2_000


def payload_text(payload: bytes, longest: int = _LONGEST) -> str:
    """A payload's text with control characters escaped; bytes that are no UTF-8 as hex."""
    cut = payload[:longest]
    try:
        text = cut.decode("utf-8")
    except UnicodeDecodeError as error:
        # a character that the cut has split is no reason for hex
        if error.start < longest - 3 or len(payload) <= longest:
            return f"0x{cut.hex()}{_rest(payload, longest)}"
        text = cut[: error.start].decode("utf-8")
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return f"{shown}{_rest(payload, longest)}"


def _rest(payload: bytes, longest: int) -> str:
    left = len(payload) - longest
    return f"… ({left:,} bytes more)" if left > 0 else ""
