"""`iiot report`: the plant on one page, as a file or live."""

import json
import re
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer

from iiot_platform.client import Client
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError, StorageError
from iiot_platform.engine.status import StatusReader
from iiot_platform.report.page import render
from iiot_platform.report.reading import read_report
from iiot_platform.report.server import PORT, LivePage, ReportServer

_PERIOD: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}
_FILE: Final = Path("report.html")


class PeriodError(ConfigError):
    """A length of time on the command line can not be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(f"'{text}' is no length of time; write 30s, 15min, 1h or 2d")


def report(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    last: Annotated[str, typer.Option(help="Length of the period: 15min, 1h, 2d.")] = "1h",
    output: Annotated[Path, typer.Option(help="File that is written.")] = _FILE,
    serve: Annotated[bool, typer.Option("--serve", help="Show a live page instead.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the live page.")] = PORT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write one self-contained HTML page of the newest rows, or show it live on this machine."""
    settings = Settings.from_environ(context.obj)
    last_s = period_s(last)
    if serve:
        page = LivePage(settings.home, line=line, last_s=last_s, dagster_url=settings.dagster_url)
        with closing(page):
            _serve(page, port)
        return
    with closing(Client(settings.home)) as client, closing(StatusReader(settings.home)) as reader:
        found = read_report(
            client,
            lines=None if line is None else [line],
            last_s=last_s,
            status=reader.read(),
        )
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    text = render(found, dagster_url=settings.dagster_url)
    try:
        output.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise StorageError(f"can not write '{output}': {error.strerror}") from error
    typer.echo(f"{output} ({len(text) / 1e6:.1f} MB)")


def period_s(text: str) -> float:
    """The seconds of a length of time.

    Raises:
        PeriodError: the text is none.
    """
    found = _PERIOD.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise PeriodError(text)
    return seconds


def _serve(page: LivePage, port: int) -> None:
    """Serve until the process is asked to end."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ReportServer(page, port=port) as server:
        typer.echo(f"live page: {server.url}")
        ended.wait()
