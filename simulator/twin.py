"""The plant file that goes with a scenario."""

from simulator.broker_link import BrokerAddress
from simulator.scenario import Scenario


def plant_yaml(scenario: Scenario, broker: BrokerAddress | None = None) -> str:
    """A plant file with the scenario's lines; their devices are discovered from the messages.

    With a broker also the source; a user name is named, its password never is.
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
    text += ["lines:", *(f"  - name: {_quoted(line)}" for line in scenario.lines)]
    return "\n".join(text) + "\n"


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
