"""A metric as it is declared.

Names follow the conventions of Prometheus: base units, `_total` for what only rises. Labels are
bounded by the plant file (lines, sources) and by this package (tables, reasons, kinds): a topic
is never one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

SECONDS: Final = "seconds"
BYTES: Final = "bytes"
UNIX: Final = "seconds since 1970"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is served; those of a histogram get `_bucket`, `_sum` and `_count`.
        kind: its type.
        description: what it says.
        labels: what it is told apart by.
        unit: empty where it counts things.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    unit: str = ""


def declared_in(module: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics among the names of a module, in their order."""
    return tuple(value for value in module.values() if isinstance(value, Metric))
