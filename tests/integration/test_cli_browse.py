import json
import subprocess
import threading
from pathlib import Path

import pytest

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from tests.servers.mosquitto import MosquittoServer, program
from tests.servers.ports import free_port


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments, {})
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_topics_that_are_heard_become_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        stop = threading.Event()

        def publish() -> None:
            command = [program("mosquitto_pub"), "-p", str(server.port), "-m", '{"A":1}']
            while not stop.is_set():
                for topic in ("line1/press/oil", "line2/oven/zone", "short/topic"):
                    subprocess.run([*command, "-t", topic], check=True)

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            url = f"mqtt://127.0.0.1:{server.port}"
            found = json.loads(told(capsys, "mqtt", "browse", url, "--seconds", "1", "--json")[1])
            lines = told(capsys, "mqtt", "browse", url, "--seconds", "1", "--plant")[1]
        finally:
            stop.set()
            publisher.join()
    assert set(found) == {"line1/press/oil", "line2/oven/zone", "short/topic"}
    assert found["line1/press/oil"]["last"] == '{"A":1}'
    (tmp_path / "plant.yaml").write_text(lines)
    plant = load_plant(tmp_path / "plant.yaml", {})
    assert plant.line_names == ("line1", "line2")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("mqtt", "browse", "http://x"), 2, "should be a URL like mqtt://host:1883"),
        (("mqtt", "browse", "mqtt://u:secret@x"), 2, "use --password-env NAME"),
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
