import pytest

from iiot_platform.alerts.backtest import FLAP_MS, Episode, LineBacktest
from iiot_platform.alerts.lifecycle import AlertKey

OIL = AlertKey("line1", "anomaly_ratio", "press/oil")
WATER = AlertKey("line1", "anomaly_ratio", "press/water")


def flaps(*episodes: tuple[AlertKey, int, int | None]) -> int:
    found = [Episode(key, start, start, end, 1.0, told=True) for key, start, end in episodes]
    return LineBacktest("line1", 0, 10 * FLAP_MS, tuple(found)).flaps()


@pytest.mark.parametrize(
    ("pause_ms", "count"), [(0, 1), (FLAP_MS - 1, 1), (FLAP_MS, 0), (2 * FLAP_MS, 0)]
)
def test_an_alert_that_fires_again_soon_has_flapped(pause_ms: int, count: int) -> None:
    assert flaps((OIL, 10, 20), (OIL, 20 + pause_ms, None)) == count


def test_each_return_counts_and_each_alert_has_its_own() -> None:
    assert flaps((OIL, 10, 20), (OIL, 30, 40), (OIL, 50, 60)) == 2
    # in whatever order they are given
    assert flaps((OIL, 50, 60), (OIL, 10, 20), (OIL, 30, 40)) == 2
    assert flaps((OIL, 10, 20), (WATER, 30, 40)) == 0
    assert flaps((OIL, 10, 20), (WATER, 30, 40), (OIL, 50, None), (WATER, 60, None)) == 2
    assert flaps() == 0
