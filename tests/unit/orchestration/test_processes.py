from pathlib import Path

from pydantic import SecretStr

from iiot_platform.config.settings import InfluxSettings, Settings
from iiot_platform.core.paths import Home
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import prepare_instance
from tests.servers.ports import free_port


def make_settings(tmp_path: Path) -> Settings:
    return Settings(
        home=Home(tmp_path / "var"),
        plant_path=tmp_path / "plant.yaml",
        influx=InfluxSettings(url="http://127.0.0.1:1", token=SecretStr("s3cret")),
    )


def test_every_process_listens_on_this_machine_alone_and_has_the_settings(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    prepare_instance(settings.home)
    given = {"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/x", "INFLUX_ORG": "o"}
    commands = [
        processes.code_server(settings, given, port=4266),
        processes.webserver(settings, given, code_port=4266, port=3000),
        processes.daemon(settings, given, code_port=4266),
    ]
    for command in commands:
        assert "PYTHONDONTWRITEBYTECODE" not in command.environ
        assert command.environ["DAGSTER_HOME"] == str(settings.home.dagster)
        assert command.environ["IIOT_HOME"] == str(settings.home.root)
        assert command.environ["IIOT_PLANT"] == str(settings.plant_path)
        assert command.environ["INFLUX_ORG"] == "o"
        assert command.environ["PYTHONPATH"].endswith(":/x")
        assert "s3cret" not in " ".join(command.argv)
        assert processes.log_path(settings.home, command).parent == settings.home.logs
    for command in commands[:2]:
        assert command.argv[command.argv.index("--host") + 1] == "127.0.0.1"
    assert len({command.name for command in commands}) == 3


def test_nothing_is_ready_where_nothing_listens() -> None:
    port = free_port()
    assert not processes.code_server_ready(port)
    assert not processes.webserver_ready(port)
    assert not processes.daemon_ready(port)
