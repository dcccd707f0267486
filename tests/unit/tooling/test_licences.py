"""What is shipped may be shipped."""

import pytest

from tools.licences import ALLOWED_FOR, allowed, licences, shipped


def test_every_dependency_is_under_an_allowed_licence() -> None:
    found = {one["Name"]: one["License"] for one in licences()}
    assert len(found) > 0.9 * len(shipped())  # some are for other systems
    assert {name: text for name, text in found.items() if not allowed(name, text)} == {}


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("UNKNOWN", False),
        (ALLOWED_FOR["asyncua"], False),  # for asyncua alone
    ],
)
def test_what_is_allowed(licence: str, is_allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert allowed("some", licence) is is_allowed
