import pytest

from iiot_platform.cli.payload_text import payload_text


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        ("Förderer".encode(), "Förderer"),
        (b"\x00\xff", "0x00ff"),
        (b"a\x1b[31m\nb\x00", "a\\x1b[31m\\nb\\x00"),
        ("\u202eab".encode(), "\\u202eab"),
        (b"", ""),
    ],
)
def test_text_stays_and_nothing_acts(payload: bytes, shown: str) -> None:
    assert payload_text(payload) == shown


def test_a_long_payload_is_cut_between_characters() -> None:
    assert payload_text("ä".encode() * 10, 5) == "ää… (15 bytes more)"
    assert payload_text(b"\xff" * 10, 5) == "0xffffffffff… (5 bytes more)"
