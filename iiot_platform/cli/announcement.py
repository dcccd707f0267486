"""What commands that compute hours tell Dagster, where there is one."""

from collections.abc import Iterable

from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.report import SettleReport


def announced(
    home: Home, engine: Engine, run_id: str, computed: Iterable[SettleReport]
) -> int | None:
    """How many hours Dagster was told of; None where there is no Dagster."""
    if not (home.dagster / "dagster.yaml").exists():
        return None
    # importing Dagster takes longer than computing an hour
    from iiot_platform.orchestration.announce import announce  # noqa: PLC0415

    return announce(home, engine, run_id, computed)


def in_words(run_id: str, told: int | None) -> str:
    """The same as a line for people."""
    dagster = "there is no Dagster here" if told is None else f"Dagster shows {told} hours"
    return f"run {run_id}; {dagster}"


def left_in_words(left: int) -> str:
    """What to know of hours that stay dirty."""
    return f"{left} dirty hours are left to Dagster's sensor, or to `iiot batch` without it"
