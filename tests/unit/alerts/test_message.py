from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.alerts.evaluation import Alert
from iiot_platform.alerts.lifecycle import AlertKey, Evidence
from iiot_platform.alerts.message import Places, alert_id, body, look_at, summary, topic
from iiot_platform.alerts.status_samples import status_samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.engine.status import BufferState, LineStatus, SinkState

NAMES = st.text(st.characters(codec="utf-8"), max_size=30)


def alert(key: AlertKey, **changes: object) -> Alert:
    values = {
        "state": "firing",
        "since_ms": 0,
        "fired_ms": 20_000,
        "value": 0.5,
        "peak": 0.6,
        "threshold": 0.2,
        "clear": 0.1,
        "severity": "warning",
    }
    return Alert(key=key, **(values | changes))  # type: ignore[arg-type]  # as a test writes it


def test_a_topic_has_a_level_for_each_part() -> None:
    key = AlertKey("Línea 2", "anomaly_ratio", "press/v1/ExtendTime")
    assert (
        topic("iiot/alerts/", key) == "iiot/alerts/L%C3%ADnea%202/anomaly_ratio/press/v1/ExtendTime"
    )
    assert topic("a/alerts/", AlertKey("l", "line_lag")) == "a/alerts/l/line_lag/-"


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_name_adds_a_wildcard_or_shares_a_topic(
    line: str, machine: str, name: str, other: str
) -> None:
    one = topic("iiot/alerts/", AlertKey(line, "anomaly_ratio", f"{machine}/{name}"))
    assert one.isascii()
    assert one.isprintable()
    assert not set(one) & set("+# \0")
    assert one.count("/") == 4 + f"{machine}/{name}".count("/")
    assert (
        topic("iiot/alerts/", AlertKey(line, "anomaly_ratio", f"{machine}/{other}")) == one
    ) is (name == other)


def test_an_id_names_an_alert_in_a_state() -> None:
    key = AlertKey("l", "anomaly_ratio", "m/n")
    firing = alert(key)
    assert alert_id(firing) == alert_id(alert(key, value=0.9, held=True))
    others = [
        alert(key, state="resolved"),
        alert(key, fired_ms=30_000),
        alert(AlertKey("l", "anomaly_ratio", "m/o")),
    ]
    assert len({alert_id(one) for one in (firing, *others)}) == 4


def test_the_sentence_says_what_where_since_when() -> None:
    key = AlertKey("line1", "silent_device", "press/oil")
    assert summary(alert(key, value=700.0, threshold=600.0)) == (
        "line1 press/oil: device is silent since 1970-01-01T00:00:00Z; time since a message of the"
        " device was received: 700 s, threshold 600"
    )
    over = alert(key, state="resolved", resolved_ms=60_000, reason="no newer value")
    assert summary(over).endswith("over at 1970-01-01T00:01:00Z (no newer value)")
    assert body(over, Places("p"))["resolved_at"] == "1970-01-01T00:01:00Z"


def test_a_command_can_be_pasted_whatever_the_names_are() -> None:
    key = AlertKey("l; rm -rf /", "anomaly_ratio", "m/$(reboot)")
    found = look_at(key, Evidence(1, "batch-1", "signal_anomalies"), Places("p", "http://d"))
    assert "--line 'l; rm -rf /' " in found["explain"]
    assert "--series 'm/$(reboot)' --at 1970-01-01T00:00:00.001Z" in found["explain"]
    assert "run" not in found


def test_pages_are_told_where_their_addresses_are_known() -> None:
    run = "5f1c9c0e-3f7e-4c7e-9a66-0d0d8d1c4b11"
    evidence = Evidence(1_795_331_149_512, run, "signal_anomalies")
    key = AlertKey("press", "anomaly_ratio", "hydraulics/oil")
    found = look_at(key, evidence, Places("p", "http://d", "https://g"))
    assert found["run"] == f"http://d/runs/{run}"
    page = "http://d/assets/press/signal_anomalies?view=partitions&partition=2026-11-22-07%3A00"
    assert found["partition"] == page
    assert found["dashboard"] == "https://g/d/iiot-signals?var-line=press"
    assert look_at(key, evidence, Places("p")).keys() == {"hint", "explain"}


def test_what_the_state_of_processes_says() -> None:
    line = LineStatus(
        "l",
        lag_s=70.0,
        sinks={"influxdb": SinkState(pending=600), "postgresql": SinkState(rejected=2)},
    )
    running = BufferState(running=True, written_ms=1, sources={"a": "connected", "b": "x: why"})

    def found(buffer: BufferState, source: str) -> dict[tuple[str, str], float]:
        made = status_samples(line, buffer, source, AlertSettings())
        return {(one.key.rule, one.key.series): one.values[0] for one in made}

    lag = {
        ("line_lag", ""): 70.0,
        ("sink_backlog", "sink/influxdb"): 600.0,
        ("sink_backlog", "sink/postgresql"): 2.0,
    }
    down = ("capture_down", "buffer")
    assert found(BufferState(), "a") == lag
    assert found(running, "a") == lag | {down: 0.0, ("capture_down", "source/a"): 0.0}
    assert found(running, "b") == lag | {down: 0.0, ("capture_down", "source/b"): 1.0}
    assert found(BufferState(written_ms=1), "a") == lag | {down: 1.0}
    full = BufferState(running=True, written_ms=1, storage_error="disk full")
    assert found(full, "a") == lag | {down: 1.0}
    made = [*status_samples(line, full, "a", AlertSettings())]
    made += status_samples(line, running, "b", AlertSettings())
    details = {one.key.series: one.detail for one in made if one.values[0] == 1}
    assert details == {"buffer": "disk full", "source/b": "source b is x: why"}
    off = AlertSettings.model_validate({"rules": {"line_lag": {"enabled": False}}})
    assert not [s for s in status_samples(line, running, "a", off) if s.key.rule == "line_lag"]


def test_an_outage_of_one_database_names_it() -> None:
    line = LineStatus("l", sinks={"influxdb": SinkState(), "postgresql": SinkState(pending=501)})
    settings = AlertSettings.model_validate(
        {"exceptions": [{"match": "l/sink/influxdb", "sink_backlog": {"enabled": False}}]}
    )
    found = status_samples(line, BufferState(), "a", settings)
    (backlog,) = (one for one in found if one.key.rule == "sink_backlog")
    assert backlog.values > backlog.rule.threshold
    told = summary(alert(backlog.key, value=backlog.values[0], threshold=500.0))
    assert told.startswith("l sink/postgresql: database is behind since ")
    assert topic("a/", backlog.key) == "a/l/sink_backlog/sink/postgresql"
