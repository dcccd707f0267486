import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.alerts.message import Places
from iiot_platform.alerts.service import AlertService
from iiot_platform.cli.app import main
from iiot_platform.core.clock import from_ms
from iiot_platform.core.paths import Home
from simulator.labels import Label
from tests.servers.faulty_line import (
    FIRED_S,
    LENGTH_S,
    LINE,
    RESOLVED_S,
    faulty_plant,
    write_faulty_line,
)
from tests.servers.streams import BASE_MS

TEXT = """\
lines: [line1, other]
defaults: {signal: {window: 50, rate_window: 10, relearn_after: 0}}
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    home = write_faulty_line(folder / "var", BASE_MS)
    plant = folder / "plant.yaml"
    plant.write_text(TEXT, encoding="utf-8")
    return {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}


def at(second: int) -> str:
    return f"{from_ms(BASE_MS + second * 1_000):%Y-%m-%dT%H:%M:%SZ}"


def run(environ: dict[str, str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(("alerts", *arguments), environ)
    return int(caught.value.code or 0)


def asked(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> Any:
    assert run(environ, *arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


SPAN = ("--from", at(0), "--to", at(LENGTH_S))


def label(folder: Path, *spans: tuple[str, str, int, int]) -> str:
    path = folder / "labels.jsonl"
    path.write_bytes(
        b"".join(
            Label(
                line=LINE,
                machine="press",
                device=device,
                series=device,
                kind="signal",
                fault=fault,
                start_ms=BASE_MS + start * 1_000,
                end_ms=BASE_MS + end * 1_000,
            ).encoded()
            for device, fault, start, end in spans
        )
    )
    return str(path)


def test_a_backtest_shows_which_alerts_there_would_have_been(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(environ, capsys, "backtest", *SPAN)
    assert found["not_replayed"] == [
        "line_lag",
        "capture_down",
        "messages_dropped",
        "disk_low",
        "sink_backlog",
    ]
    (line,) = found["lines"]
    (episode,) = line["episodes"]
    assert (line["alerts"], line["flaps"], line["fit"]) == (1, 0, None)
    assert line["by_rule"]["anomaly_ratio"] == 1
    assert (episode["fired_at"], episode["resolved_at"]) == (at(FIRED_S), at(RESOLVED_S))
    assert [(s["fired"], s["told"], s["minutes"]) for s in line["shifts"]] == [(1, 1, 3)]
    assert run(environ, "backtest", *SPAN) == 0
    shown = capsys.readouterr().out
    assert "1 alerts (anomaly_ratio 1), 0 flaps" in shown
    assert "press/oil" in shown


def test_labels_give_precision_and_recall(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = label(tmp_path, ("oil", "stuck", 120, 180), ("oil", "late", 300, 310))
    (line,) = asked(environ, capsys, "backtest", *SPAN, "--labels", labels)["lines"]
    fit = line["fit"]
    assert (fit["precision"], fit["recall"]) == (1.0, 0.5)
    assert fit["by_type"] == {"late": [0, 1], "stuck": [1, 1]}
    other = label(tmp_path, ("water", "stuck", 120, 180))
    (line,) = asked(environ, capsys, "backtest", *SPAN, "--labels", other)["lines"]
    assert (line["fit"]["precision"], line["fit"]["recall"]) == (0.0, 0.0)
    machine = label(tmp_path, ("*", "stop", 260, 270))
    for lead, recall in (("0s", 0.0), ("30s", 1.0)):
        arguments = ("backtest", *SPAN, "--labels", machine, "--lead", lead)
        (line,) = asked(environ, capsys, *arguments)["lines"]
        assert line["fit"]["recall"] == recall
    labels = label(tmp_path, ("oil", "stuck", 120, 180), ("oil", "late", 300, 310))
    assert run(environ, "backtest", *SPAN, "--labels", labels) == 0
    assert "1 of 2 found (recall 50%)" in capsys.readouterr().out


def test_a_candidate_is_tried_without_touching_anything(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(Path(environ["IIOT_HOME"]).rglob("*.parquet"))
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(
        TEXT + "alerts: {exceptions: [{match: line1/press/*, anomaly_ratio: {for_s: 120}}]}\n"
    )
    tried = ("backtest", *SPAN, "--line", LINE, "--plant", str(candidate))
    assert asked(environ, capsys, *tried)["lines"][0]["alerts"] == 0
    held = f"[{{name: m, from: '{at(0)}', to: '{at(LENGTH_S + 60)}'}}]"
    candidate.write_text(TEXT + f"alerts: {{maintenance: {held}}}\n")
    (line,) = asked(environ, capsys, *tried)["lines"]
    assert (line["alerts"], line["shifts"][0]["told"]) == (1, 0)
    assert sorted(Path(environ["IIOT_HOME"]).rglob("*.parquet")) == before
    assert not Home(Path(environ["IIOT_HOME"])).alerts.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("backtest", "--from", at(10), "--to", at(0)), 2),
        (("backtest", *SPAN, "--line", "nope"), 2),
        (("backtest", *SPAN, "--line", "other"), 1),
        (("backtest", *SPAN, "--labels", "/nowhere"), 1),
        (("backtest", *SPAN, "--lead", "soon"), 2),
    ],
)
def test_what_can_not_be_asked_is_told(
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
) -> None:
    assert run(environ, *arguments) == code
    assert capsys.readouterr().err


def test_rules_are_shown_as_they_are_in_force(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text(
        TEXT + "alerts: {exceptions: [{match: line1/press, silent_device: {enabled: false}}]}\n"
    )
    site = {**environ, "IIOT_PLANT": str(plant)}
    for series, on in (((), True), (("--series", "press/oil"), False)):
        found = asked(site, capsys, "rules", "--line", LINE, *series)
        assert {one["name"]: one["enabled"] for one in found}["silent_device"] is on
    assert run(site, "rules", "--line", LINE, "--series", "press/oil") == 0
    assert "silent_device (off)" in " ".join(capsys.readouterr().out.split())


def test_a_list_shows_what_fires_is_pending_and_has_ended(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(environ, capsys, "list")["alerts"] == []
    assert run(environ, "list") == 0
    assert "start 'iiot alerts run'" in capsys.readouterr().out
    home = Home(Path(environ["IIOT_HOME"]))
    seconds = [5]
    with closing(
        AlertService(
            home, faulty_plant(), Places("p"), clock=lambda: BASE_MS + (seconds[-1] + 20) * 1_000
        )
    ) as service:
        for second, state in ((5, None), (FIRED_S - 10, "pending"), (FIRED_S, "firing")):
            seconds.append(second)
            service.step()
            found = asked(environ, capsys, "list")["alerts"]
            assert [one["state"] for one in found] == ([] if state is None else [state])
    found = asked(environ, capsys, "list")
    assert found["waiting"] == {"mqtt": 1}
    assert found["alerts"][0]["look_at"]["hint"]
    assert run(environ, "list") == 0
    shown = capsys.readouterr().out
    assert "iiot explain --line line1 --table signal_anomalies --series press/oil" in shown
    assert "1 messages wait for mqtt" in shown
    for path in home.root.glob("alerts.sqlite*"):
        path.unlink()
