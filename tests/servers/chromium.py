"""A real browser without a window, spoken with over its DevTools."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.sync.client import ClientConnection, connect

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START_S: Final = 60.0
_ANSWER_S: Final = 60.0


def require() -> str:
    """The path of a browser; a skipped test where there is none, on CI too."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(
        "no Chromium on this machine (apt-get install chromium): tests/servers/install leaves it "
        "out, since it and its libraries are some 400 MB"
    )


class Tab:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        (target,) = self._send("Target.createTarget", {"url": "about:blank"}, None).values()
        attached = {"targetId": target, "flatten": True}
        self._session = self._send("Target.attachToTarget", attached, None)["sessionId"]

    def open(self, url: str, *, width: int, height: int = 900, phone: bool = False) -> None:
        """Load a page in a window of some CSS pixels; a phone heeds what a page says of its width.

        Ends when its own script has run.
        """
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.do("Emulation.setDeviceMetricsOverride", **window)
        answer = self.do("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.wait_for(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools."""
        return self._send(method, parameters, self._session)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def cut(self, *, offline: bool) -> None:
        """Let no request through, or all again."""
        self.do("Network.enable")
        way = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.do("Network.emulateNetworkConditions", offline=offline, **way)

    def wait_for(self, expression: str, *, within_s: float = 60.0) -> None:
        """Until an expression is true."""
        until = time.monotonic() + within_s
        while self.value(expression) is not True:
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.05)

    def _send(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        until = time.monotonic() + _ANSWER_S
        while True:
            answer = json.loads(self._connection.recv(timeout=max(until - time.monotonic(), 0.1)))
            if answer.get("id") == number:  # all others are events
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A browser with a profile of its own below a folder."""
    program = require()
    profile, log = folder / "profile", folder / "chromium.log"
    command = [
        program,
        "--headless",
        "--hide-scrollbars",  # so that a window is as wide as its page
        "--no-sandbox",  # what runs as root has none, and it sees our own page alone
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    env = {**os.environ, "HOME": str(folder), "TZ": "UTC"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=env, start_new_session=True
        )
    try:
        address = _address(profile, process, log)
        # events that nobody reads stop nothing
        with connect(address, max_size=None, max_queue=None) as connection:
            yield Tab(connection)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    """Where its DevTools listen, which it writes into its profile."""
    written = profile / "DevToolsActivePort"
    until = time.monotonic() + _START_S
    while True:
        told = written.read_text(encoding="utf-8").split() if written.exists() else []
        if len(told) == 2:  # port and path
            return f"ws://127.0.0.1:{told[0]}{told[1]}"
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"the browser does not start: {log.read_text(errors='replace')[-2_000:]}")
        time.sleep(0.05)
