"""`iiot replay`, `explain`, `quarantine` and `log`, as they are called."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.cli.app import main
from iiot_platform.core.clock import from_ms
from iiot_platform.core.paths import Home
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, signal

NASTY = '<script>alert("x")</script>&[bold]'
START = f"{from_ms(BASE_MS):%Y-%m-%dT%H:%MZ}"
PLANT = """\
# the plant as it stands
lines: [line1]
timezone: Europe/Berlin
defaults:
  signal: {window: 20, threshold: 6, refractory: 0}
"""


@pytest.fixture
def environ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """A home with two hours of one signal that has spikes, computed."""
    home = Home(tmp_path / "home")
    records = [
        signal(NASTY, BASE_MS + i * 60_000, 20 + math.sin(i) + (3.5 if i == 60 else 0))
        for i in range(100)
    ]
    records.append(signal("t", BASE_MS, 1.0)._replace(payload=b"\x00\xff\x1b[31m"))
    records.append(signal("t", BASE_MS + 1_000, 1.0)._replace(topic="hall/line1/press/t"))
    write_segments(home, "line1", records, rows=30)
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT, encoding="utf-8")
    variables = {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}
    assert run(variables, "batch") == 0
    capsys.readouterr()
    return variables


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    path = tmp_path / "candidate.yaml"
    path.write_text(PLANT.replace("threshold: 6", "threshold: 4"), encoding="utf-8")
    return path


def run(environ: dict[str, str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ)
    return int(caught.value.code or 0)


def answer(environ: dict[str, str], capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(environ, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def replay(candidate: Path, *more: str) -> tuple[str, ...]:
    return ("replay", "--plant", str(candidate), "--line", "line1", "--from", START, *more)


def test_a_replay_tells_what_would_change(
    environ: dict[str, str], candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(environ, capsys, *replay(candidate))
    (series,) = found["series"]
    assert (series["standing"], series["candidate"], series["added"]) == (0, 1, 1)
    assert series["name"] == NASTY
    (example,) = series["examples_added"]
    assert example["ts"] == f"{from_ms(BASE_MS + 3_600_000):%Y-%m-%dT%H:%M:%S}.000Z"
    assert sum(shift["alarm_minutes_candidate"] for shift in found["shifts"]) == 1
    assert found["promoted"] is None
    assert run(environ, *replay(candidate)) == 0
    shown = capsys.readouterr().out
    assert "alarm minutes per shift" in shown
    assert Path(environ["IIOT_PLANT"]).read_text(encoding="utf-8") == PLANT


class _Tags(HTMLParser):
    """Collects what a page would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_whole_in_itself_and_runs_nothing(
    environ: dict[str, str], candidate: Path, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    assert run(environ, *replay(candidate, "--html", str(path))) == 0
    text = path.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    assert "script" not in tags.tags
    assert tags.addresses == []
    assert "url(" not in text
    assert "width=device-width" in text
    assert tags.tags.count("svg") == 1
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;[bold]" in text
    assert "nan" not in text.split("<svg", 1)[1].split("</svg>")[0]


def test_a_promotion_keeps_the_old_file_and_computes_the_hours(
    environ: dict[str, str], candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Path(environ["IIOT_PLANT"])
    assert run(environ, *replay(candidate, "--promote")) == 0
    shown = capsys.readouterr().out
    assert "-  signal: {window: 20, threshold: 6, refractory: 0}" in shown
    assert "+  signal: {window: 20, threshold: 4, refractory: 0}" in shown
    assert plant.read_bytes() == candidate.read_bytes()
    (kept,) = plant.parent.glob("plant.yaml.*")
    assert kept.read_text(encoding="utf-8") == PLANT
    again = answer(environ, capsys, *replay(candidate))
    assert (again["series"][0]["standing"], again["series"][0]["added"]) == (1, 0)
    promoted = answer(environ, capsys, *replay(candidate, "--promote"))["promoted"]
    assert promoted["hours"] == again["hours"] == 2
    assert promoted["diff"] == []
    assert len(list(plant.parent.glob("plant.yaml.*"))) == 2
    assert list(plant.parent.glob("*.tmp")) == []


def test_a_candidate_that_means_something_else_elsewhere_is_not_promoted(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    source = "sources: [{host: broker, tls: {ca_file: ca.pem}}]\n"
    (folder / "candidate.yaml").write_text(PLANT + source, encoding="utf-8")
    assert run(environ, *replay(folder / "candidate.yaml", "--promote")) == 2
    assert "relative paths" in capsys.readouterr().err
    plant = Path(environ["IIOT_PLANT"])
    assert plant.read_text(encoding="utf-8") == PLANT
    assert [path.name for path in plant.parent.glob("plant.yaml*")] == ["plant.yaml"]
    assert list(plant.parent.glob("*.tmp")) == []


def test_hours_that_were_never_computed_are_refused(
    environ: dict[str, str], candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(environ, *replay(candidate, "--to", f"{START[:-1]}:30Z")) == 0
    capsys.readouterr()
    command = ("replay", "--plant", str(candidate), "--line", "line1", "--from", "now")
    assert run(environ, *command[:-1], "2020-01-01", "--to", "2020-01-02") == 1
    assert "it has hours from" in capsys.readouterr().err


def test_a_row_is_explained(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    at = f"{from_ms(BASE_MS + 3_600_500):%Y-%m-%dT%H:%M:%S}Z"
    arguments = ("explain", "--line", "line1", "--table", "signal_anomalies")
    asked = (*arguments, "--series", NASTY, "--at", at)
    found = answer(environ, capsys, *asked)
    assert found["windows"][0]["mean"] == found["row"]["model_avg"]
    assert found["raw"][0]["offset"] == 60
    assert found["run_page"] is None
    assert found["parameters"]["detector"]["threshold"] == 6
    assert run(environ, *asked) == 0
    shown = capsys.readouterr().out
    assert "window of value" in shown
    assert NASTY in shown
    assert run(environ, *arguments, "--series", "nothing", "--at", at) == 1
    assert run(environ, "explain", *arguments[1:3], "--table", "signal", *asked[5:]) == 2
    assert "did you mean 'signals'" in capsys.readouterr().err


def test_the_log_is_verified_listed_and_shown(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (sound,) = answer(environ, capsys, "log", "verify")
    assert (sound["sound"], sound["records"], sound["segments"]) == (True, 102, 4)
    segments = answer(environ, capsys, "log", "ls", "--line", "line1")
    assert [segment["hi"] for segment in segments] == [30, 60, 90, 102]
    records = answer(
        environ, capsys, "log", "show", "--line", "line1", "--offset", "99", "--count", "9"
    )
    assert [record["offset"] for record in records] == [99, 100, 101]
    assert records[1]["payload_hex"] == "00ff1b5b33316d"
    assert run(environ, "log", "show", "--line", "line1", "--offset", "100") == 0
    shown = capsys.readouterr().out
    assert "0x00ff1b5b33316d" in shown
    assert "\x1b" not in shown
    assert run(environ, "log", "show", "--line", "line1", "--offset", "102") == 1
    assert run(environ, "log", "verify", "--line", "line2") == 1
    capsys.readouterr()
    (Home(Path(environ["IIOT_HOME"])).capture / segments[1]["path"]).unlink()
    assert run(environ, "log", "verify") == 1
    shown = capsys.readouterr().out
    assert "broken at offsets [30, 60) (missing file)" in shown


def test_the_quarantine_is_listed_shown_and_retried(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = answer(environ, capsys, "quarantine", "list")
    assert [(row["offset"], row["payload_hex"]) for row in rows[:1]] == [(100, "00ff1b5b33316d")]
    assert rows[1]["topic"] == "hall/line1/press/t"
    (bad,) = answer(environ, capsys, "quarantine", "list", "--reason", "bad_topic")
    assert answer(environ, capsys, "quarantine", "list", "--from", "now") == []
    shown = answer(environ, capsys, "quarantine", "show", "--line", "line1", "--offset", "101")
    assert shown == bad
    assert run(environ, "quarantine", "list") == 0
    assert run(environ, "quarantine", "show", "--line", "line1", "--offset", "100") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert run(environ, "quarantine", "show", "--line", "line1", "--offset", "3") == 1
    assert run(environ, "quarantine", "list", "--reason", "bad_tropic") == 2
    assert "did you mean 'bad_topic'" in capsys.readouterr().err
    plant = Path(environ["IIOT_PLANT"])
    shape = "lines: [{name: line1, topic: 'hall/{line}/{machine}/{device}'}]"
    plant.write_text(PLANT.replace("lines: [line1]", shape), encoding="utf-8")
    retried = ("quarantine", "retry", "--reason", "bad_topic")
    (report,) = answer(environ, capsys, *retried)["lines"]
    assert (report["tried"], report["decoded"], report["stays"]) == (1, 1, {})
    assert len(report["hours"]) == 1
