"""`python -m simulator run|replay|opcua|sparkplug|twin`."""

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.status import Status

from simulator.broker_link import BrokerAddress, read_password
from simulator.errors import SimulatorError
from simulator.recording import DEFAULT_LABEL_COLUMNS
from simulator.replay import ReplayOptions, replay
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from simulator.session import RunOptions, run
from simulator.sparkplug import play
from simulator.stats import Stats
from simulator.twin import plant_yaml

_USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        command: Callable[[argparse.Namespace], None] = parsed.command
        command(parsed)
    except SimulatorError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    except ValidationError as error:
        for problem in error.errors():
            option = ".".join(str(part) for part in problem["loc"])
            print(f"{option}: {problem['msg']}; got {problem['input']!r}", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    return 0


def _run(parsed: argparse.Namespace) -> None:
    options = RunOptions(
        scenario=parsed.scenario,
        home=parsed.home,
        broker=_broker(parsed),
        history_s=parsed.history,
        seconds=parsed.seconds,
        lines=tuple(parsed.lines),
    )
    with _stop_on_signal() as stop, _progress(parsed.json) as on_progress:
        stats = run(options, stop=stop, on_progress=on_progress)
    _finish(stats, as_json=parsed.json)


def _replay(parsed: argparse.Namespace) -> None:
    options = ReplayOptions(
        csv=parsed.csv,
        line=parsed.line,
        machine=parsed.machine,
        rate=parsed.rate,
        shift_to_now=parsed.shift_to_now,
        timezone=parsed.timezone,
        time_column=parsed.time_column,
        label_columns=tuple(parsed.label_columns),
        delimiter=parsed.delimiter,
        decimal_comma=parsed.decimal_comma,
        home=parsed.home,
        broker=_broker(parsed),
    )
    with _stop_on_signal() as stop, _progress(parsed.json) as on_progress:
        stats = replay(options, stop=stop, on_progress=on_progress)
    _finish(stats, as_json=parsed.json)


def _opcua(parsed: argparse.Namespace) -> None:
    # asyncua costs half a second that the other commands need not wait
    from simulator.opcua_session import OpcUaOptions, serve_opcua  # noqa: PLC0415 - as said

    options = OpcUaOptions(
        scenario=parsed.scenario,
        home=parsed.home,
        url=parsed.url,
        username=parsed.username,
        password=None if parsed.password_file is None else read_password(parsed.password_file),
        secure_only=parsed.secure_only,
        trusted=parsed.trusted,
        user_certificates=parsed.user_certificates,
        seconds=parsed.seconds,
        lines=tuple(parsed.lines),
        history_s=parsed.history,
        wait_for_subscriber=parsed.wait_for_subscriber,
    )
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    with _stop_on_signal() as stop, _progress(parsed.json) as on_progress:
        stats = serve_opcua(options, stop=stop, on_progress=on_progress)
    _finish(stats, as_json=parsed.json)


def _sparkplug(parsed: argparse.Namespace) -> None:
    options = RunOptions(
        scenario=parsed.scenario,
        home=parsed.home,
        broker=_broker(parsed),
        seconds=parsed.seconds,
        lines=tuple(parsed.lines),
    )
    with _stop_on_signal() as stop, _progress(parsed.json) as on_progress:
        stats = play(options, group=parsed.group, stop=stop, on_progress=on_progress)
    _finish(stats, as_json=parsed.json)


def _twin(parsed: argparse.Namespace) -> None:
    sys.stdout.write(plant_yaml(load_scenario(parsed.scenario)))


def _broker(parsed: argparse.Namespace) -> BrokerAddress:
    return BrokerAddress(
        host=parsed.host,
        port=parsed.port,
        username=parsed.username,
        password=None if parsed.password_file is None else read_password(parsed.password_file),
        tls_ca=parsed.tls_ca,
    )


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set; what they did before is restored."""
    stop = Event()

    def handler(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[Stats], None] | None]:  # noqa: FBT001 - a flag
    """A line that says how far it is, where somebody looks."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield None
        return
    with Status("", console=console) as status:
        yield lambda stats: status.update(_sentence(stats))


def _sentence(stats: Stats) -> str:
    return (
        f"{stats.source}, {stats.phase}: {stats.published:,} messages published, "
        f"{stats.rate_per_s:,.0f}/s, {stats.labels} faults"
    )


def _finish(stats: Stats, *, as_json: bool) -> None:
    text = stats.encoded().decode() if as_json else _sentence(stats)
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run|replay|opcua|sparkplug|twin")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, default=Path("var"), help="folder of all state")
    common.add_argument("--host", default="127.0.0.1")
    common.add_argument("--port", type=int, default=1883)
    common.add_argument("--username")
    common.add_argument("--password-file", type=Path, help="its first line is the password")
    common.add_argument("--tls-ca", type=Path, help="CA file; encrypts the connection")
    common.add_argument("--json", action="store_true", help="print the counts as JSON at the end")

    plays = commands.add_parser("run", parents=[common], help="play a scenario")
    plays.set_defaults(command=_run)
    plays.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    plays.add_argument("--history", type=float, default=0.0, metavar="SECONDS")
    plays.add_argument("--seconds", type=float, metavar="N", help="length of the live part")
    plays.add_argument("--lines", nargs="+", default=[], help="these lines alone")

    replays = commands.add_parser("replay", parents=[common], help="replay a CSV recording")
    replays.set_defaults(command=_replay)
    replays.add_argument("csv", type=Path)
    replays.add_argument("--line", required=True)
    replays.add_argument("--machine", required=True)
    replays.add_argument("--rate", default="1x", help="1x, 20x, … or max")
    replays.add_argument("--shift-to-now", action="store_true", help="the recording begins now")
    replays.add_argument("--timezone", help="zone of times that carry none; default UTC")
    replays.add_argument("--time-column")
    replays.add_argument("--label-columns", nargs="*", default=list(DEFAULT_LABEL_COLUMNS))
    replays.add_argument("--delimiter")
    replays.add_argument("--decimal-comma", action="store_true")

    serves = commands.add_parser("opcua", help="serve a scenario over OPC UA")
    serves.set_defaults(command=_opcua)
    serves.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    serves.add_argument("--home", type=Path, default=Path("var"), help="folder of all state")
    serves.add_argument("--url", default="opc.tcp://127.0.0.1:4840")
    serves.add_argument("--username", help="the only user that is let in")
    serves.add_argument("--password-file", type=Path, help="its first line is the password")
    serves.add_argument("--secure-only", action="store_true", help="no endpoint without security")
    serves.add_argument("--trusted", type=Path, help="folder of accepted client certificates")
    serves.add_argument(
        "--user-certificates", type=Path, help="folder of certificates of users who are let in"
    )
    serves.add_argument(
        "--history", type=float, default=0.0, metavar="SECONDS", help="kept for HistoryRead"
    )
    serves.add_argument(
        "--wait-for-subscriber", action="store_true", help="say nothing before somebody listens"
    )
    serves.add_argument("--seconds", type=float, metavar="N")
    serves.add_argument("--lines", nargs="+", default=[], help="these lines alone")
    serves.add_argument("--json", action="store_true", help="print the counts as JSON at the end")

    _add_sparkplug(commands, common)
    twin = commands.add_parser("twin", help="print the plant file that goes with a scenario")
    twin.set_defaults(command=_twin)
    twin.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    return parser


def _add_sparkplug(commands: Any, common: argparse.ArgumentParser) -> None:
    plays_nodes = commands.add_parser(
        "sparkplug", parents=[common], help="play machines as Sparkplug B edge nodes"
    )
    plays_nodes.set_defaults(command=_sparkplug)
    plays_nodes.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    plays_nodes.add_argument("--group", help="group ID; default the line's name")
    plays_nodes.add_argument("--seconds", type=float, metavar="N")
    plays_nodes.add_argument("--lines", nargs="+", default=[], help="these lines alone")


if __name__ == "__main__":
    sys.exit(main())
