"""Every command line of `iiot` that a text names is one: command, options, arguments."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.grafana import rendered
from iiot_platform.cli.app import COMMANDS, frame
from tests.servers.command_lines import ROOT, complaint, of_markdown, of_python, of_template

DOCUMENTS = sorted(
    # a changelog names what there once was, too
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")}
    - {ROOT / "CHANGELOG.md"}
)
PACKAGES = ("iiot_platform", "buffer_service", "simulator", "tools")
NO_COMMANDS = {"iiot tables of a sink"}
"""What is quoted and begins like one."""
PROCESSES = {"demo", "capture", "dagster", "metrics", "alerts run", "grafana"}
"""Commands that run, or whose answer has a form of its own."""


def test_a_wrong_command_line_is_found() -> None:
    for line in ("iiot tables gaps", "iiot nope", "iiot status --jsn", "iiot quarantine shw"):
        assert complaint(line) is not None, line
    for line in ("iiot explain", "iiot quarantine", "iiot explain --at now"):
        assert complaint(line) is None, line
        assert complaint(line, complete=True) is not None, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_command_lines_that_are(path: Path) -> None:
    found = list(of_markdown(path.read_text(encoding="utf-8")))
    wrong = [complaint(line, complete=complete) for line, complete in found]
    assert [one for one in wrong if one] == []
    assert found or path.name != "README.md"


def test_messages_and_docstrings_name_command_lines_that_are() -> None:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {line: path for path in paths for line in of_python(path.read_text(encoding="utf-8"))}
    assert "iiot tables" in found
    wrong = [
        f"{path}: {said}"
        for line, path in found.items()
        if line not in NO_COMMANDS and (said := complaint(line))
    ]
    assert wrong == []


def hints() -> Iterator[str]:
    """Everything that an alert tells people to look at."""
    for rule in RULES.values():
        yield rule.look
    for group in yaml.safe_load(rendered()["rules.yaml"])["groups"]:
        for rule in group["rules"]:
            yield from rule["annotations"].values()
    text = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            yield from rule["annotations"].values()


def test_the_hints_of_alerts_run_as_they_stand() -> None:
    count = 0
    for hint in hints():
        lines = list(of_template(hint))
        count += len(lines)
        for line in lines:
            assert complaint(line, complete=True) is None, hint
        # what is not between backticks would not be looked at
        assert hint.count("iiot ") == sum(line.count("iiot ") for line in lines), hint
    assert count > len(RULES)


def test_all_but_processes_answer_with_json() -> None:
    assert {line for line, _ in _commands()} | {"dagster"} >= PROCESSES
    for line, options in _commands():
        own = any(line == one or line.startswith(f"{one} ") for one in PROCESSES)
        assert own == ("--json" not in options), line


def _commands() -> Iterator[tuple[str, set[str]]]:
    for name in COMMANDS:
        app = typer.main.get_command(frame(name))
        yield from _leaves(name, getattr(app, "commands", {})[name])


def _leaves(line: str, command: object) -> Iterator[tuple[str, set[str]]]:
    below = getattr(command, "commands", None)
    if below is None:
        params = getattr(command, "params", [])
        yield line, {option for param in params for option in param.opts}
        return
    for name, one in below.items():
        yield from _leaves(f"{line} {name}", one)
