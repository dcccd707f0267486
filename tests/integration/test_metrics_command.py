"""`iiot metrics` as a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers.http_client import get


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "iiot_platform.cli", "metrics", "--serve", "--port", "0"],
        env={**os.environ, "IIOT_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("metrics: http://127.0.0.1:")
        url = said.split()[1].removesuffix("/metrics")
        assert get(f"{url}/healthz")[0] == 200
        assert get(f"{url}/readyz")[0] == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_it_refuses_an_open_address(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iiot_platform.cli", "metrics", "--serve", "--host", "0.0.0.0"],  # noqa: S104 - refused
        env={**os.environ, "IIOT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "open to other machines" in done.stderr
