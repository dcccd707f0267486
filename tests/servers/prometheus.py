"""A real Prometheus for tests, and its tool; Debian's package has both."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.ports import free_port

START_TIMEOUT_S = 60.0


def require() -> None:
    """Skip where Prometheus can not be had; on CI that is a failure."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if not missing:
        return
    reason = f"no {' and no '.join(missing)} on this machine: apt-get install prometheus"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """What promtool says; fails where it finds something wrong."""
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@dataclass(frozen=True)
class Prometheus:
    """A server under test."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, now."""
        return self._ask("query", query=expression)["result"]  # type: ignore[no-any-return]  # JSON

    def label_values(self, label: str, match: str) -> list[str]:
        """The values of a label among some series."""
        return self._ask(f"label/{label}/values", **{"match[]": match})  # type: ignore[no-any-return]  # JSON

    def rules(self) -> list[dict[str, Any]]:
        """The alerting rules with their state."""
        groups = self._ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ask(self, path: str, **form: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(form)}"
        with urllib.request.urlopen(url, timeout=60) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]


@contextlib.contextmanager
def server(folder: Path, config: Path) -> Iterator[Prometheus]:
    """A server with a configuration, its data below a folder."""
    port = free_port()
    log_path = folder / "prometheus.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log_path.read_text()[-2_000:])
            time.sleep(0.05)
        yield Prometheus(port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False
