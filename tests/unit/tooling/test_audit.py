"""Known vulnerabilities of what is shipped are told, and fail the check."""

import datetime as dt
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools import audit

TODAY = dt.date(2026, 5, 1)
FINE = {"name": "fine", "version": "1", "vulns": []}
BAD = {
    "name": "bad",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"], "aliases": ["CVE-1"]}],
}
Look = Callable[[float], list[dict[str, Any]]]


def review(ident: str = "CVE-1", package: str = "bad", until: str = "2026-05-02") -> str:
    return (
        f'[[reviewed]]\nid = "{ident}"\npackage = "{package}"\nreason = "not reached"\n'
        f"until = {until}\n"
    )


def never(_timeout_s: float) -> list[dict[str, Any]]:
    raise AssertionError("looked again")


def away(_timeout_s: float) -> list[dict[str, Any]]:
    raise audit.NotLookedError("no network")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    def run(look: Look, *arguments: str, reviews: str = "") -> int:
        reviewed = tmp_path / "audit.toml"
        reviewed.write_text(reviews, encoding="utf-8")
        return audit.main(arguments, look=look, stamp=tmp_path / "stamp", reviewed=reviewed)

    return run


def test_a_vulnerability_fails(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: [FINE, BAD], "--daily") == 1
    assert "error: bad 1: PYSEC-1 (mended in 2)\n" in capsys.readouterr().err
    # and fails again: only what is clean rests for a day
    assert run(lambda _: [FINE, BAD], "--daily") == 1


def test_a_missing_network_does_not_fail(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(away, "--daily") == 0
    assert capsys.readouterr().out == (
        "note: known vulnerabilities were not looked for: no network\n"
    )
    assert run(lambda _: [BAD], "--daily") == 1


def test_it_is_looked_once_a_day_and_whenever_somebody_asks(run: Callable[..., int]) -> None:
    assert run(lambda _: [FINE], "--daily") == 0
    assert run(never, "--daily") == 0
    with pytest.raises(AssertionError, match="looked again"):
        run(never)


def test_a_stamp_is_of_one_day_and_of_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, now = tmp_path / "stamp", dt.datetime.now(dt.UTC)
    assert not audit.is_fresh(stamp, now)
    for rubbish in ("", "x", f"{audit.state()} yesterday", f"{audit.state()} 2026-05-01"):
        stamp.write_text(rubbish, encoding="utf-8")
        assert not audit.is_fresh(stamp, now)
    stamp.write_text(f"{audit.state()} {now.isoformat()}\n", encoding="utf-8")
    assert audit.is_fresh(stamp, now)
    assert audit.is_fresh(stamp, now + dt.timedelta(hours=23))
    assert not audit.is_fresh(stamp, now + dt.timedelta(hours=25))
    other = tmp_path / "other.lock"
    other.write_text("bad==1\n", encoding="utf-8")
    monkeypatch.setattr(audit, "LOCK", other)
    assert not audit.is_fresh(stamp, now)


@pytest.mark.parametrize(
    ("reviews", "faults", "notes"),
    [
        (review(), [], ["bad 1: PYSEC-1 (mended in 2): not reached"]),
        (review("PYSEC-1"), [], ["bad 1: PYSEC-1 (mended in 2): not reached"]),
        (
            review(until="2026-05-01"),
            ["bad 1: PYSEC-1 (mended in 2): its review has ended on 2026-05-01"],
            [],
        ),
        (
            review(package="fine"),
            ["bad 1: PYSEC-1 (mended in 2)"],
            ["fine: CVE-1 is gone; take its review out of audit.toml"],
        ),
    ],
)
def test_what_was_reviewed_does_not_count_until_its_day(
    reviews: str, faults: list[str], notes: list[str]
) -> None:
    found = audit.judged([FINE, BAD], audit.Review.read(reviews), TODAY)
    assert (found.faults, found.notes) == (faults, notes)


@pytest.mark.parametrize(
    "wrong",
    [
        review().replace('"not reached"', '" "'),
        review().replace("until = 2026-05-02", 'until = "some day"'),
        review().replace('package = "bad"\n', ""),
        review() + "why = 1\n",
        "[[reviewed",
    ],
)
def test_a_review_without_reason_or_day_is_refused(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    assert run(never, reviews=wrong) == 1
    assert "error: audit.toml: " in capsys.readouterr().err


def test_the_reviews_of_this_project_can_be_read() -> None:
    audit.Review.read(audit.REVIEWED.read_text(encoding="utf-8"))


@pytest.fixture
def pip_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of pip-audit."""

    def put(script: str) -> None:
        program = tmp_path / "bin" / "pip-audit"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(audit, "reach", lambda: None)
    return put


def test_what_pip_audit_writes_is_read(pip_audit: Callable[[str], None]) -> None:
    pip_audit(
        'while [ "$1" != --output ]; do shift; done\n'
        """echo '{"dependencies": [{"name": "x"}]}' > "$2"; exit 1"""
    )
    assert audit.looked(30.0) == [{"name": "x"}]


@pytest.mark.parametrize(
    ("script", "within_s", "reason"),
    [
        ("echo first; echo no data >&2; exit 1", 60.0, "no data"),
        ("exec sleep 60", 0.1, "no answer within"),
    ],
)
def test_what_pip_audit_can_not_tell_is_not_known(
    pip_audit: Callable[[str], None], script: str, within_s: float, reason: str
) -> None:
    pip_audit(script)
    with pytest.raises(audit.NotLookedError, match=reason):
        audit.looked(within_s)


def test_who_is_away_or_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(audit, "SOURCE", "https://127.0.0.1:9/")
    with pytest.raises(audit.NotLookedError, match="Connection refused"):
        audit.reach()
    monkeypatch.setattr(audit, "REACH_S", 0.001)
    with pytest.raises(audit.NotLookedError, match="does not answer within"):
        audit.reach()
