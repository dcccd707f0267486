"""Quality of a reading: the OPC UA StatusCode, and the status of an analysed row."""

from enum import IntEnum
from typing import Final

GOOD: Final = 0x0000_0000
UNCERTAIN: Final = 0x4000_0000
BAD: Final = 0x8000_0000
GOOD_RECEIVE_TIME: Final = 0x0000_0001
"""Good, but the source sent no time: the receive time stands in. The mark is in reserved low
bits, which no server sets, so that the severity bits keep saying Good."""


def is_good(quality: int) -> bool:
    """True where the severity bits of a StatusCode say Good."""
    return quality >> 30 == 0


class Status(IntEnum):
    """Why a row of an analysis is as it is; stored by its lower-case name."""

    OK = 0
    WARMING = 1
    BAD_QUALITY = 2
    RELEARNED = 3
    TRUNCATED = 4
    LOW_COVERAGE = 5
    DELETED = 6

    @property
    def label(self) -> str:
        """The name as it stands in tables."""
        return self.name.lower()
