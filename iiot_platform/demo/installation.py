"""The demo's plant file, ports and command lines."""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import PLANT_FILE, Settings
from iiot_platform.core.errors import ConfigError
from iiot_platform.demo.children import Command
from iiot_platform.demo.ports import HOST, PortClaims, choose_ports
from simulator import BrokerAddress, OpcUaTwin, plant_yaml
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario

_SYSTEM_FOLDERS: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
_PORT: Final = re.compile(r"(?m)^(\s*(?:-\s+)?port:\s*)\d+")
_URL: Final = re.compile(rf"opc\.tcp://{re.escape(HOST)}:\d+")
_OPCUA_USER: Final = "iiot"
_OPCUA_PASSWORD: Final = Path("simulator", "opcua.password")
_SIMULATOR_NICE: Final = 10
_PACKAGES: Final = Path(__file__).resolve().parents[2]
_MOSQUITTO: Final = """\
listener {port} {host}
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1000
autosave_on_changes true
max_queued_messages 0
max_queued_bytes 1073741824
max_inflight_messages 0
persistent_client_expiration 7d
"""


@dataclass(frozen=True)
class DemoOptions:
    """How the demo is run.

    Attributes:
        seconds: how long after everything is ready; None: until it is stopped.
        history_s: how far back the simulated plant begins.
        scenario: what is simulated; None: the default plant.
    """

    seconds: float | None = None
    history_s: float = 3_600.0
    scenario: Path | None = None


class PlantPortError(ConfigError):
    """The plant file of the demo does not say which ports its broker and its server have."""

    def __init__(self, path: Path, port: int, url: str) -> None:
        super().__init__(
            f"{path} should have one source with 'host: {HOST}' and 'port: {port}', and no OPC UA"
            f" source but one with 'url: {url}': the demo brings its own broker and server. Mend"
            " it, or remove the file and it is written anew"
        )


@dataclass(frozen=True)
class DemoInstallation:
    """What the demo starts.

    Attributes:
        settings: those of its home, with the plant file and the address of Dagster's UI.
        plant: the simulated plant.
        ports: of the broker, the OPC UA server, Dagster's UI and its code server.
        options: how it is run.
        environ: the environment that everything inherits.
    """

    settings: Settings
    plant: Plant
    ports: Mapping[str, int]
    options: DemoOptions
    environ: Mapping[str, str]

    @classmethod
    def prepare(
        cls, environ: Mapping[str, str], options: DemoOptions, claims: PortClaims
    ) -> "DemoInstallation":
        """Choose ports and write the plant file where there is none.

        Args:
            environ: the environment of the demo.
            options: how it is run.
            claims: keep its ports from other demos.

        Raises:
            ConfigError: the plant file or the environment is wrong.
        """
        given = Settings.from_environ(environ)
        home = given.home
        ports = choose_ports(home.root / "ports.json", claims)
        path = home.root / PLANT_FILE
        server_url = f"opc.tcp://{HOST}:{ports['opcua']}"
        _write_plant(path, options, ports["mqtt"], server_url)
        url = f"http://{HOST}:{ports['dagster']}"
        search = (str(_PACKAGES), *filter(None, environ.get("PYTHONPATH", "").split(":")))
        inherited = {
            **environ,
            "IIOT_HOME": str(home.root),
            "IIOT_PLANT": str(path),
            "DAGSTER_UI_URL": url,
            "IIOT_BUFFER_METRICS": f"{HOST}:{ports['buffer-metrics']}",
            "IIOT_METRICS": f"{HOST}:{ports['metrics']}",
            "PYTHONPATH": ":".join(dict.fromkeys(search)),
            "PYTHONUNBUFFERED": "1",
        }
        # compiled modules halve the start of every process
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        plant = load_plant(path, inherited)
        brokers = [(s.host, s.port) for s in plant.sources if isinstance(s, MqttSource)]
        servers = [s.url for s in plant.sources if isinstance(s, OpcUaSource)]
        if brokers != [(HOST, ports["mqtt"])] or servers not in ([], [server_url]):
            raise PlantPortError(path, ports["mqtt"], server_url)
        settings = replace(given, plant_path=path, dagster_url=url)
        return cls(settings, plant, ports, options, inherited)

    @property
    def opcua(self) -> OpcUaSource | None:
        """The OPC UA server's source, where the plant has one."""
        return next((s for s in self.plant.sources if isinstance(s, OpcUaSource)), None)

    @property
    def broker_source(self) -> str:
        """Name of the broker's source."""
        return next(s.name for s in self.plant.sources if isinstance(s, MqttSource))

    @property
    def mqtt_lines(self) -> tuple[str, ...]:
        """The lines that the broker brings."""
        return tuple(line.name for line in self.plant.lines_of(self.broker_source))

    @property
    def opcua_lines(self) -> tuple[str, ...]:
        """The lines that the OPC UA server brings."""
        lines = () if self.opcua is None else self.plant.lines_of(self.opcua.name)
        return tuple(line.name for line in lines)

    @property
    def lines_told(self) -> str:
        """How the lines come, and where their history is from."""
        text = f"{', '.join(self.mqtt_lines)} over MQTT, history published"
        source = self.opcua
        if source is None:
            return text
        history = "history read from the server" if source.first_history_s else "live alone"
        return f"{text} | {', '.join(self.opcua_lines)} over OPC UA, {history}"

    def broker(self) -> Command:
        """Mosquitto where the machine has it, else the broker of this package."""
        port = self.ports["mqtt"]
        path = f"{self.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"
        mosquitto = shutil.which("mosquitto", path=path)
        if mosquitto is None or self.environ.get("IIOT_DEMO_BROKER") == "embedded":
            argv = (sys.executable, "-m", "iiot_platform.demo.broker", str(port))
            return Command("broker", argv, self.environ)
        folder = self.settings.home.root / "broker"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "mosquitto.conf"
        text = _MOSQUITTO.format(port=port, host=HOST, folder=folder)
        if os.geteuid() == 0:
            # a change of user would take its right to the folder, and its end with its parent
            text += "user root\n"
        config.write_text(text, encoding="utf-8")
        return Command("broker", (mosquitto, "-c", str(config)), self.environ)

    def buffer(self) -> Command:
        """The buffer service."""
        where = ("--plant", str(self.settings.plant_path), "--home", str(self.settings.home.root))
        argv = (sys.executable, "-m", "buffer_service", *where)
        return Command("buffer", argv, self.environ)

    def simulator(self) -> Command:
        """The lines over MQTT: their history as fast as the broker takes it, then live."""
        argv = (
            *(sys.executable, "-m", "simulator", "run", "--json"),
            *("--host", HOST, "--port", str(self.ports["mqtt"])),
            *self._played(self.mqtt_lines),
        )
        # its history must not keep Dagster from starting
        return Command("simulator", argv, self.environ, nice=_SIMULATOR_NICE)

    def opcua_simulator(self) -> Command | None:
        """The OPC UA server of the other lines: it has their history, and plays them live."""
        source = self.opcua
        if source is None:
            return None
        argv = (
            *(sys.executable, "-m", "simulator", "opcua", "--json", "--secure-only"),
            *("--url", source.url, "--username", source.username or ""),
            *("--password-file", str(self.settings.home.root / _OPCUA_PASSWORD)),
            "--wait-for-subscriber",
            *self._played(self.opcua_lines),
        )
        return Command("opcua-simulator", argv, self.environ)

    def _played(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        scenario = self.options.scenario
        return (
            *("--home", str(self.settings.home.root)),
            *("--history", str(self.options.history_s)),
            *(() if scenario is None else ("--scenario", str(scenario))),
            *("--lines", *lines),
        )


def _write_plant(path: Path, options: DemoOptions, port: int, url: str) -> None:
    """The plant file of the scenario; one that is there keeps everything but its ports."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        text = path.read_text(encoding="utf-8")
        text = _PORT.sub(rf"\g<1>{port}", text, count=1)
        text = _URL.sub(url, text)
    else:
        scenario = load_scenario(options.scenario or DEFAULT_SCENARIO)
        lines = tuple(scenario.lines)[1:]
        password = path.parent / _OPCUA_PASSWORD
        server = OpcUaTwin(url, lines, _OPCUA_USER, _OPCUA_PASSWORD, options.history_s)
        if lines and not password.exists():
            password.parent.mkdir(parents=True, exist_ok=True)
            password.touch(mode=0o600)
            password.write_text(f"{secrets.token_urlsafe(18)}\n", encoding="utf-8")
        broker = BrokerAddress(host=HOST, port=port)
        text = plant_yaml(scenario, broker, server if lines else None)
    path.write_text(text, encoding="utf-8")
