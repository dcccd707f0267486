"""The plant file that goes with a scenario."""

from pathlib import Path
from typing import NamedTuple

from simulator.broker_link import BrokerAddress
from simulator.scenario import Scenario, StateSpec

_SUFFIX = "_state"


class OpcUaTwin(NamedTuple):
    """A simulated OPC UA server and the lines that it serves.

    Attributes:
        password_file: where the user's password stands, seen from the plant file.
        history_s: how much of its history is read at the first start.
    """

    url: str
    lines: tuple[str, ...]
    username: str
    password_file: Path
    history_s: float = 0.0


def plant_yaml(
    scenario: Scenario, broker: BrokerAddress | None = None, server: OpcUaTwin | None = None
) -> str:
    """A plant file with the scenario's lines; their devices are discovered from the messages.

    With a broker or a server also the sources; a user name is named, its password never is.
    """
    text = [
        f"# The plant that plays scenario '{scenario.name}'.",
        "# Topics are <line>/<machine>/<device>; devices are discovered.",
        f"name: {_quoted(scenario.name)}",
    ]
    if broker is not None:
        text += [
            "sources:",
            "  - kind: mqtt",
            f"    host: {_quoted(broker.host)}",
            f"    port: {broker.port}",
        ]
        if broker.username is not None:
            text.append(f"    username: {_quoted(broker.username)}")
    if server is not None:
        text += _server(scenario, server)
    text.append("lines:")
    for line in scenario.lines:
        text.append(f"  - name: {_quoted(line)}")
        if server is not None:
            text.append(f"    source: {'opcua' if line in server.lines else 'mqtt'}")
    return "\n".join(text) + "\n"


def _server(scenario: Scenario, server: OpcUaTwin) -> list[str]:
    text = [
        "  - kind: opcua",
        f"    url: {_quoted(server.url)}",
        "    security: sign_and_encrypt",
        f"    username: {_quoted(server.username)}",
        f"    password_file: {_quoted(str(server.password_file))}",
    ]
    if server.history_s:
        text.append(f"    first_history_s: {server.history_s:g}")
    text.append("    nodes:")
    several = len(server.lines) > 1
    for line in server.lines:
        for path in (*_states(scenario, line), f"Plant/{line}/*/*"):
            text.append(f"      - path: {_quoted(path)}")
            if several:
                text.append(f"        line: {_quoted(line)}")
            if not path.endswith("/*"):
                text.append("        kind: state")
    return text


def _states(scenario: Scenario, line: str) -> list[str]:
    """Nodes that are a number in the server and a state in the plant."""
    names = [
        (machine, name)
        for machine, devices in scenario.lines[line].items()
        for name, spec in devices.items()
        if isinstance(spec, StateSpec)
    ]
    named = [f"Plant/{line}/*/*{_SUFFIX}"] if any(n.endswith(_SUFFIX) for _, n in names) else []
    return named + [f"Plant/{line}/{m}/{n}" for m, n in names if not n.endswith(_SUFFIX)]


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
