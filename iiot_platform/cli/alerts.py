"""`iiot alerts`: tell, list, explain, replay and provision alerts."""

import json
import logging
import signal
import threading
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.evaluation import LineState
from iiot_platform.alerts.message import Places, body, look_at, moment, pending_summary, summary
from iiot_platform.alerts.service import AlertService, sole_service
from iiot_platform.alerts.store import AlertStore
from iiot_platform.cli.alerts_backtest import backtest
from iiot_platform.config.active_plant import examine
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.plant_watch import PlantWatch
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, now_ms

alerts = typer.Typer(
    help="Tell, list, replay and provision alerts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
alerts.command("backtest")(backtest)
_RECENT_MS = MS_PER_HOUR


@alerts.command("run")
def run(
    context: typer.Context,
    *,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="End after so long; default: when it is stopped.")
    ] = None,
) -> None:
    """Evaluate the rules every few seconds, and tell over MQTT and to the webhook.

    The plant file is followed: a change counts once the file has rested for two looks, at once upon
    SIGHUP; a broken one changes nothing.
    """
    settings = Settings.from_environ(context.obj)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    plant = examine(settings, context.obj).plant
    stop = threading.Event()
    hung_up = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    if seconds is not None:
        threading.Timer(seconds, stop.set).start()
    with sole_service(settings.home):
        service = AlertService(settings.home, plant, _places(settings, plant))
        try:
            typer.echo(f"alerts of {', '.join(plant.line_names)}; told: {_told(service)}")
            service.run(stop, PlantWatch(settings.plant_path, context.obj), hung_up)
        finally:
            service.close()


@alerts.command("list")
def listing(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the alerts that fire or are pending, and those that have ended within an hour."""
    settings = Settings.from_environ(context.obj)
    plant = examine(settings, context.obj).plant
    if not settings.home.alerts.exists():
        states: dict[tuple[str, str], LineState] = {}
        waiting: dict[str, int] = {}
        refused = 0
    else:
        with AlertStore(settings.home.alerts) as store:
            states, waiting, refused = store.states(), store.waiting(), store.refused()
    found = _current(states, _places(settings, plant))
    evaluated = {line: moment(state.at_ms) for (line, scope), state in states.items() if scope}
    if as_json:
        values = {
            "alerts": found,
            "evaluated": evaluated,
            "waiting": waiting,
            "refused": refused,
        }
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if not states:
        console.print("nothing was evaluated here yet; start 'iiot alerts run'")
        return
    console.print(_table(found) if found else "no alert fires or is pending")
    for one in found:
        if one["state"] == "firing" and "explain" in one["look_at"]:
            console.print(escape(one["look_at"]["explain"]), soft_wrap=True)
    for target, count in waiting.items():
        console.print(f"{count} messages wait for {target}")
    if refused:
        console.print(f"{refused} messages were refused by the webhook and set aside")


@alerts.command("rules")
def rules(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="A line; default the plant's rules.")] = None,
    series: Annotated[str, typer.Option(help="machine/name[/operation] of the line.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every rule with the settings in force."""
    settings = Settings.from_environ(context.obj)
    plant = load_plant(settings.plant_path, context.obj)
    name = plant.line(line).name if line is not None else ""
    given = {rule: plant.alerts.rule(rule, name, series) for rule in RULES}
    if as_json:
        values = [
            {**RULES[rule]._asdict(), **one.model_dump(mode="json")} for rule, one in given.items()
        ]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("rule", "value", "above", "clear", "for", "clear for", "looks back"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "value")
    for rule, one in given.items():
        info = RULES[rule]
        where = info.value if info.replayable else f"{info.value} (not replayable)"
        table.add_row(
            rule if one.enabled else f"{rule} (off)",
            where,
            f"{one.threshold:g} {info.unit}".strip(),
            f"{one.clear:g}",
            f"{one.for_s:g} s",
            f"{one.clear_for_s:g} s",
            f"{one.window_s:g} s",
        )
    Console(highlight=False).print(table)


def _places(settings: Settings, plant: Plant) -> Places:
    return Places(plant.name, settings.dagster_url, settings.grafana_url)


def _told(service: AlertService) -> str:
    return ", ".join(service.targets) or "nobody; set alerts.mqtt or alerts.webhook"


def _current(states: dict[tuple[str, str], LineState], places: Places) -> list[dict[str, Any]]:
    """What fires, what is pending and what has ended lately, in this order."""
    firing, pending, ended = [], [], []
    for state in states.values():
        told = set(state.told)
        firing += [{**body(a, places), "told": a.key in told} for a in state.firing]
        for entry in state.alerts:
            if entry.state.phase == "pending":
                key = entry.key
                pending.append(
                    {
                        "state": "pending",
                        "line": key.line,
                        "rule": key.rule,
                        "series": key.series,
                        "since": moment(entry.state.since_ms),
                        "value": entry.state.value,
                        "summary": pending_summary(key, entry.state),
                        "look_at": look_at(key, entry.state.evidence, places),
                    }
                )
        recent = [a for a in state.recent if (a.resolved_ms or 0) > now_ms() - _RECENT_MS]
        ended += [{**body(alert, places), "summary": summary(alert)} for alert in recent]
    return [*firing, *pending, *ended]


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("state", "line", "rule", "series", "since", "value"):
        table.add_column(heading, overflow="fold")
    colours = {"firing": "red", "pending": "yellow", "resolved": "green"}
    for one in found:
        held = one["state"] == "firing" and not one["told"]
        word = f"{one['state']} (held back)" if held else one["state"]
        table.add_row(
            f"[{colours[one['state']]}]{word}[/]",
            escape(one["line"]),
            one["rule"],
            escape(one["series"]),
            one["since"],
            f"{one['value']:.4g}",
        )
    return table
