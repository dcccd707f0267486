from iiot_platform.cli.mqtt_listener import Births, shown
from tests.servers.sparkplug import metric, payload


def test_metrics_have_names_once_their_birth_was_heard() -> None:
    names: Births = {}
    alone = metric(-5, datatype=3, alias=7, send_type=False)
    data = payload(alone, metric(-2, datatype=3, name="Step"), seq=1)
    assert shown("spBv1.0/G/DDATA/E/D", data, names) == "#7=4294967291, Step=-2"
    birth = payload(metric(1, datatype=3, alias=7, name="Temp"), seq=0)
    assert shown("spBv1.0/G/DBIRTH/E/D", birth, names) == "Temp=1"
    assert shown("spBv1.0/G/DDATA/E/D", data, names) == "Temp=-5, Step=-2"
    assert shown("spBv1.0/G/DDATA/E/D2", data, names).startswith("#7=")


def test_other_payloads_are_text() -> None:
    assert shown("line1/m/a", b'{"n": 1}', {}) == '{"n": 1}'
    assert shown("line1/m/a", b"\xff", {}) == "\ufffd"
    assert shown("spBv1.0/G/DDATA/E/D", b"\xff", {}).startswith("not_sparkplug")
