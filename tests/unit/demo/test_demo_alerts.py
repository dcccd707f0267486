from pathlib import Path

from iiot_platform.alerts.evaluation import Alert, LineState
from iiot_platform.alerts.lifecycle import AlertKey
from iiot_platform.alerts.store import TABLES_SCOPE, AlertStore
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core.paths import Home
from iiot_platform.demo.alerts import AlertNews


def alert(number: int, *, over: bool = False) -> Alert:
    return Alert(
        key=AlertKey("line 1", "anomaly_ratio", f"press/s{number}"),
        state="resolved" if over else "firing",
        since_ms=0,
        fired_ms=1_000 * number,
        value=0.5,
        peak=0.6,
        threshold=0.2,
        clear=0.1,
        severity="warning",
        resolved_ms=60_000 if over else None,
    )


def test_what_fires_and_ends_is_said_once_and_what_an_earlier_run_said_is_not(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    assert list(AlertNews(home, AlertSettings()).news()) == []
    with AlertStore(home.alerts) as store:

        def stands(*firing: Alert, recent: tuple[Alert, ...] = ()) -> None:
            store.save("line 1", TABLES_SCOPE, LineState(0, firing=firing, recent=recent), [], 0)

        stands(alert(0))
        news = AlertNews(home, AlertSettings())
        assert (list(news.news()), news.firing, news.fired) == ([], 1, 0)
        stands(alert(0), alert(1))
        (said,) = news.news()
        assert said.startswith("alert firing: line 1 press/s1: many anomalies since 1970-01-01T")
        assert said.endswith("(MQTT iiot/alerts/line%201/anomaly_ratio/press/s1)")
        assert list(news.news()) == []
        stands(alert(0), recent=(alert(1, over=True),))
        (said,) = news.news()
        assert said.startswith("alert resolved: line 1 press/s1: ")
        stands(*(alert(i) for i in range(2, 10)))
        *shown, rest = news.news()
        assert len(shown) == 5
        assert rest == "and 3 more: iiot alerts list"
    assert (news.firing, news.fired) == (8, 9)


def test_a_file_that_can_not_be_read_stops_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.alerts.write_bytes(b"no database" * 200)
    assert list(AlertNews(home, AlertSettings()).news()) == []
