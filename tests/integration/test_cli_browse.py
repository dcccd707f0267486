import json
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from iiot_platform.cli.app import main
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.plant_file import load_plant
from simulator.opcua_server import NAMESPACE
from tests.servers.certificates import Authority
from tests.servers.mosquitto import MosquittoServer, ServerTls, program
from tests.servers.opcua import MOTOR, SIGNAL, STATE, VALVE, OpcUaServer, payload
from tests.servers.ports import free_port


def told(
    capsys: pytest.CaptureFixture[str], *arguments: str, **environ: str
) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments, environ)
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def publish(server: MosquittoServer, *options: str) -> None:
    """Three topics, retained: who subscribes hears each at once."""
    command = [program("mosquitto_pub"), "-h", server.host, "-p", str(server.port), *options]
    for topic in ("line1/press/oil", "line2/oven/zone", "short/topic"):
        subprocess.run([*command, "-r", "-q", "1", "-t", topic, "-m", '{"A":1}'], check=True)


def test_topics_that_are_heard_become_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        publish(server)
        browse = ("mqtt", "browse", f"mqtt://127.0.0.1:{server.port}", "--seconds", "2")
        found = json.loads(told(capsys, *browse, "--json")[1])
        lines = told(capsys, *browse, "--plant")[1]
        some = told(capsys, *browse, "--match", "line2/*", "--match", "sh?rt/*")[1]
        nothing = told(capsys, *browse, "--match", "line3/*", "--plant")
    assert set(found) == {"line1/press/oil", "line2/oven/zone", "short/topic"}
    assert found["line1/press/oil"]["last"] == '{"A":1}'
    (tmp_path / "plant.yaml").write_text(lines)
    plant = load_plant(tmp_path / "plant.yaml", {})
    assert plant.line_names == ("line1", "line2")
    assert [row.split()[0] for row in some.splitlines()[::2]] == [
        "line2/oven/zone",
        "short/topic",
        "2",
    ]
    assert nothing[0] == 1
    assert "nothing matches 'line3/*'" in nothing[2]


def test_a_broker_that_encrypts_is_browsed_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "ca")
    pair, mine = authority.issue("broker"), authority.issue("me")
    tls = ServerTls(authority.ca_file, pair.cert_file, pair.key_file, require_client=True)
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    files = ["--ca-file", str(authority.ca_file)]
    ours = [*files, "--cert-file", str(mine.cert_file), "--key-file", str(mine.key_file)]
    broker = MosquittoServer(tmp_path / "broker", tls=tls, users={"me": "s3cret"})
    publisher = ("--cafile", str(authority.ca_file), "-u", "me", "-P", "s3cret")
    shown = ("--cert", str(mine.cert_file), "--key", str(mine.key_file))
    with broker as server:
        publish(server, *publisher, *shown)
        url = f"mqtts://me@127.0.0.1:{server.port}"
        browse = ("mqtt", "browse", url, "--seconds", "2")
        by_name = (*ours, "--password-env", "WORD", "--plant")
        lines = told(capsys, *browse, *by_name, WORD="s3cret")[1]
        by_file = told(capsys, *browse, *ours, "--password-file", str(secret), "--plant")[1]
        uncertified = told(capsys, *browse, *files, "--password-file", str(secret))
        distrusted = told(capsys, *browse, "--password-file", str(secret))
        plain = told(capsys, "mqtt", "browse", url.replace("mqtts", "mqtt"))
    for text, environ in ((lines, {"WORD": "s3cret"}), (by_file, {})):
        assert "s3cret" not in text
        (tmp_path / "plant.yaml").write_text(text)
        (source,) = load_plant(tmp_path / "plant.yaml", environ).sources
        assert isinstance(source, MqttSource)
        assert (source.username, source.password) == ("me", SecretStr("s3cret"))
        assert source.tls is not None
        assert (source.tls.ca_file, source.tls.cert_file) == (authority.ca_file, mine.cert_file)
    assert "the broker may want a client certificate" in uncertified[2]
    assert "the broker's certificate is not accepted" in distrusted[2]
    assert "the port may want TLS" in plain[2]
    assert [uncertified[0], distrusted[0], plain[0]] == [1, 1, 1]


def test_variables_of_a_server_are_shown_with_their_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = {"IIOT_HOME": str(tmp_path)}
    with OpcUaServer(tmp_path / "server") as server:
        server.tell("burst 5 6 1")
        browse = ("opcua", "browse", server.url)
        text = told(capsys, *browse, **home)[1]
        found = {one["path"]: one for one in json.loads(told(capsys, *browse, "--json", **home)[1])}
        lines = told(capsys, *browse, "--plant", **home)[1]
        some = told(capsys, *browse, "--match", "*/[sv]*a*", **home)[1]
        one = told(capsys, *browse, "--match", "Plant/line1/m/state", "--plant", **home)[1]
        nothing = told(capsys, *browse, "--match", "Plant/line2/*", "--plant", **home)
    value = payload(SIGNAL, 5)["SensorValue"]
    assert set(found) == {f"Plant/{topic}" for topic in (SIGNAL, STATE, VALVE, MOTOR)}
    assert found[f"Plant/{SIGNAL}"] == {
        "path": f"Plant/{SIGNAL}",
        "node": f"nsu={NAMESPACE};s={SIGNAL}",
        "type": "Double",
        "value": f"{value!r}",
    }
    assert '"TimeValue":5' in found[f"Plant/{VALVE}"]["value"]
    rows = text.splitlines()
    assert rows[:4] == ["Plant/", "  line1/", "    m/", rows[3]]
    assert rows[3].startswith("      motor  ST_Electrical  {")
    assert f"      signal  Double  {value!r}" in rows
    assert rows[-2:] == [f"          nsu={NAMESPACE};s={VALVE}", "4 variables"]
    names = [row.split()[0] for row in some.splitlines()[3:-1:2]]
    assert (names, some.splitlines()[-1]) == (["signal", "state", "valve"], "3 of 4 variables")
    assert nothing[0] == 1
    assert "nothing matches 'Plant/line2/*'; there are 'Plant/line1/m/" in nothing[2]
    for printed, path in ((lines, "Plant/line1/m/*"), (one, "Plant/line1/m/state")):
        (tmp_path / "plant.yaml").write_text(printed)
        (source,) = load_plant(tmp_path / "plant.yaml", {}).sources
        assert isinstance(source, OpcUaSource)
        assert [node.path for node in source.nodes] == [path]


def test_a_server_is_browsed_by_password_and_by_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users"
    users.mkdir()
    mine, key = tmp_path / "user.der", tmp_path / "user.key"
    home = {"IIOT_HOME": str(tmp_path), "WORD": "s3cret"}
    options = {"username": "me", "password": "s3cret", "users": str(users), "only": True}
    with OpcUaServer(tmp_path / "server", **options) as server:
        browse = ("opcua", "browse", server.url, "--security", "sign_and_encrypt", "--plant")
        by_name = told(capsys, *browse, "--username", "me", "--password-env", "WORD", **home)[1]
        files = ("--user-certificate-file", str(mine), "--user-key-file", str(key))
        refused = told(capsys, *browse, *files, **home)
        (users / "me.der").write_bytes(mine.read_bytes())
        by_certificate = told(capsys, *browse, *files, **home)[1]
    assert refused[0] == 1
    assert "refused with the user certificate" in refused[2]
    for text, user in ((by_name, ("me", None)), (by_certificate, (None, mine))):
        assert "s3cret" not in text
        (tmp_path / "plant.yaml").write_text(text)
        (source,) = load_plant(tmp_path / "plant.yaml", home).sources
        assert isinstance(source, OpcUaSource)
        assert (source.username, source.user_certificate_file) == user
        assert (source.password is None) == (source.username is None)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("mqtt", "browse", "http://x"), 2, "should be a URL like mqtt://host:1883"),
        (("mqtt", "browse", "mqtt://u:secret@x"), 2, "use --password-env NAME"),
        (("mqtt", "browse", "mqtt://x:123456"), 2, "should be a URL like mqtt://host:1883"),
        (("mqtt", "browse", "mqtt://x", "--ca-file", __file__), 2, "are for mqtts://"),
        (("mqtt", "browse", "mqtts://x", "--key-file", __file__), 2, "belong together"),
        (("mqtt", "browse", "x", "--password-env", "NONE"), 2, "NONE is not set"),
        (("opcua", "browse", "http://x"), 2, "should be a URL like opc.tcp://host:4840"),
        (("opcua", "browse", "opc.tcp://x", "--security", "most"), 2, "security"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, text: str
) -> None:
    ended, _, error = told(capsys, *arguments)
    assert ended == code
    assert text in error
    assert "secret" not in error


def test_a_server_that_is_away_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, _, error = told(capsys, "opcua", "browse", f"opc.tcp://127.0.0.1:{free_port()}")
    assert ended == 1
    assert "nothing listens there" in error
