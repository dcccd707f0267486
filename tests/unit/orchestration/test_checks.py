import sqlite3
from contextlib import closing

from iiot_platform.orchestration.checks import Lag, completeness, lag
from tests.servers.site import Site


def remove(site: Site, lo: int) -> None:
    with closing(sqlite3.connect(site.settings.home.manifest)) as manifest, manifest:
        manifest.execute("DELETE FROM segments WHERE lo = ?", (lo,))


def test_a_log_without_holes_is_complete(site: Site) -> None:
    site.write("press_1", rows=200)
    found = completeness(site.engine(), "press_1", [(0, 200)])
    assert found.passed
    assert found.offsets == 200


def test_every_hole_is_named(site: Site) -> None:
    site.write("press_1", rows=200)
    remove(site, 50)
    remove(site, 150)
    found = completeness(site.engine(), "press_1", [(0, 150), (120, 200)])
    assert not found.passed
    assert found.missing == ((50, 100), (150, 200))


def test_an_hour_without_offsets_is_complete(site: Site) -> None:
    assert completeness(site.engine(), "press_1", []).passed


def test_what_waits_longer_than_its_bound_lags(site: Site) -> None:
    engine = site.engine()
    site.write("press_1", rows=100)

    def look(after_ms: int) -> Lag:
        return lag(engine, "press_1", now_ms=site.now_ms + after_ms, limit_s=60.0)

    assert look(10_000).passed
    late = look(120_000)
    assert not late.passed
    assert late.waiting == 100
    assert 120 < late.waiting_s < 130
    engine.run_batch("press_1", run_id="r")
    assert look(120_000).passed
