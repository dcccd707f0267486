"""Plays a whole plant with labelled faults; an independent writer that imports none of ours."""

from simulator.broker_link import BrokerAddress, read_password
from simulator.errors import SimulatorError
from simulator.replay import ReplayOptions, replay
from simulator.scenario_file import load_scenario
from simulator.session import RunOptions, run
from simulator.stats import Stats
from simulator.twin import OpcUaTwin, plant_yaml

__all__ = [
    "BrokerAddress",
    "OpcUaTwin",
    "ReplayOptions",
    "RunOptions",
    "SimulatorError",
    "Stats",
    "load_scenario",
    "plant_yaml",
    "read_password",
    "replay",
    "run",
]
