"""A buffer in a process of its own that can be made to die at a chosen step.

Run as `python -m tests.servers.buffer HOME PORT LINES [STEP COUNT]`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from buffer_service.__main__ import serve
from iiot_platform.config.plant import BufferSettings, Line, MqttSource, Plant
from iiot_platform.core.paths import Home

RECEIVE_MAXIMUM = 4_000
MQTT_CLIENT = "IIOT_TEST_MQTT_CLIENT"
MQTT_CLIENTS = ("mqtt5", "paho")


class KillAt:
    """Kills this process, without a word, when a step is reached for the n-th time."""

    def __init__(self, step: str, count: int) -> None:
        self._step = step
        self._left = count

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def plant(port: int, lines: list[str], **source: object) -> Plant:
    """A plant of lines that one broker brings."""
    given = {"port": port, "receive_maximum": RECEIVE_MAXIMUM, **source}
    if MQTT_CLIENT in os.environ:
        given = {"client": os.environ[MQTT_CLIENT], **given}
    return Plant(
        sources=(MqttSource.model_validate(given),),
        lines=tuple(Line(name=line) for line in lines),
        buffer=BufferSettings.model_validate(
            {"seal_interval_s": float(os.environ.get("SEAL_INTERVAL_S", "1"))}
            | json.loads(os.environ.get("BUFFER_SETTINGS", "{}"))
        ),
    )


def main(arguments: list[str]) -> int:
    home, port, lines, *at = arguments
    steps = KillAt(at[0], int(at[1])) if at else KillAt("", 0)
    source = json.loads(os.environ.get("SOURCE_SETTINGS", "{}"))
    return serve(Home(Path(home)), plant(int(port), lines.split(","), **source), steps=steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
