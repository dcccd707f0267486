"""The live page as a process that serves it."""

import os
import signal
import subprocess
import sys
import urllib.request

from tests.unit.cli.test_report_command import environ

__all__ = ["environ"]


def test_the_live_page_is_served_until_it_is_asked_to_end(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "iiot_platform.cli", "report", "--serve", "--port", "0"]
    env = {**os.environ, **environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("live page: ").strip()
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # our own page
                assert "in 30 rows" in answer.read().decode()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
