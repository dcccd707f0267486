"""Fail where a dependency that is shipped has a known vulnerability.

Without a network nothing is known: that is said, and is no failure. What was looked at and found to
be harmless here stands with its reason in `tools/audit.toml`.
"""

import argparse
import contextlib
import datetime as dt
import hashlib
import json
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements.lock"
REVIEWED: Final = ROOT / "tools" / "audit.toml"
SOURCE: Final = "https://pypi.org/simple/pip-audit/"
"""Whoever can not be reached here has no data for pip-audit either."""
REACH_S: Final = 2.0
STAMP: Final = Path(sys.prefix) / ".audited"
FRESH: Final = dt.timedelta(days=1)


class NotLookedError(Exception):
    """Nothing is known, and why."""


@dataclass(frozen=True)
class Review:
    """A vulnerability that somebody has looked at.

    Attributes:
        ident: as pip-audit names it, or one of its aliases.
        package: what has it.
        reason: why it does no harm here.
        until: from this day on it counts again.
    """

    ident: str
    package: str
    reason: str
    until: dt.date

    @classmethod
    def read(cls, text: str) -> "tuple[Self, ...]":
        """The reviews of a file.

        Raises:
            TypeError: a review lacks something, or has something unknown.
            ValueError: a reason or a date is none.
        """
        found = tuple(
            cls(ident=str(row.pop("id", "")), **row)
            for row in tomllib.loads(text).get("reviewed", [])
        )
        for one in found:
            if not (one.ident and one.reason.strip() and type(one.until) is dt.date):
                raise ValueError(f"{one.package}: id, reason and a date `until` are needed")
        return found


@dataclass
class Findings:
    """What is to be said.

    Attributes:
        faults: each fails the check.
        notes: what was reviewed, and reviews that nothing needs any more.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judged(
    packages: Sequence[Mapping[str, Any]], reviews: Sequence[Review], today: dt.date
) -> Findings:
    """What pip-audit has found, after the reviews."""
    findings, used = Findings(), set()
    for one in packages:
        for fault in one.get("vulns", []):
            names = {fault["id"], *fault.get("aliases", [])}
            mended = ", ".join(fault["fix_versions"]) or "no version yet"
            text = f"{one['name']} {one['version']}: {fault['id']} (mended in {mended})"
            review = next(
                (r for r in reviews if r.package == one["name"] and r.ident in names), None
            )
            if review is None:
                findings.faults.append(text)
                continue
            used.add(review)
            if review.until <= today:
                findings.faults.append(f"{text}: its review has ended on {review.until}")
            else:
                findings.notes.append(f"{text}: {review.reason}")
    findings.notes += [
        f"{one.package}: {one.ident} is gone; take its review out of {REVIEWED.name}"
        for one in reviews
        if one not in used
    ]
    return findings


def looked(timeout_s: float) -> list[dict[str, Any]]:
    """What pip-audit finds for each package.

    Raises:
        NotLookedError: it did not get its data.
    """
    reach()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [
            *("pip-audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip"),
            *("--require-hashes", "--progress-spinner", "off", "--timeout", "10"),
            *("--aliases", "on", "--format", "json", "--output", str(found)),
        ]
        try:
            done = subprocess.run(  # noqa: S603 - a tool of the virtual environment
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise NotLookedError(f"no answer within {timeout_s:g} s") from None
        try:
            packages: list[dict[str, Any]] = json.loads(found.read_text("utf-8"))["dependencies"]
        except (OSError, ValueError, KeyError):
            rows = (done.stdout + done.stderr).strip().splitlines() or ["no answer"]
            raise NotLookedError(rows[-1]) from None
    return packages


def reach() -> None:
    """Ask for one page, in a process that can be ended: a look-up of names knows no time-out.

    Raises:
        NotLookedError: there is no answer.
    """
    code = f"from tools import audit; audit.ask({SOURCE!r})"
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=REACH_S,
        )
    except subprocess.TimeoutExpired:
        raise NotLookedError(f"{SOURCE} does not answer within {REACH_S:g} s") from None
    if done.returncode:
        raise NotLookedError(done.stderr.strip().rpartition("\n")[2])


def ask(url: str) -> None:
    """Exit with the reason where a page can not be had."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our own constant
    try:
        urllib.request.urlopen(request, timeout=REACH_S).close()  # noqa: S310 - likewise
    except OSError as error:
        sys.exit(f"{url} can not be reached: {getattr(error, 'reason', error)}")


def state() -> str:
    """Changes with whatever an earlier look has not seen."""
    digest = hashlib.sha256()
    for path in (LOCK, REVIEWED, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_fresh(stamp: Path, now: dt.datetime) -> bool:
    """True where the same was looked at within a day, and nothing was found."""
    try:
        said, at = stamp.read_text(encoding="utf-8").split()
        return said == state() and abs(now - dt.datetime.fromisoformat(at)) < FRESH
    except (OSError, ValueError, TypeError):
        return False


def main(
    arguments: Sequence[str] | None = None,
    *,
    look: Callable[[float], list[dict[str, Any]]] = looked,
    stamp: Path = STAMP,
    reviewed: Path = REVIEWED,
) -> int:
    """Look and say what was found; 1 where something was."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__)
    parser.add_argument("--daily", action="store_true", help="once a day, and a minute at most")
    daily = parser.parse_args(arguments).daily
    now = dt.datetime.now(dt.UTC)
    if daily and is_fresh(stamp, now):
        return 0
    try:
        reviews = Review.read(reviewed.read_text(encoding="utf-8"))
    except (TypeError, ValueError) as error:
        sys.stderr.write(f"error: {reviewed.name}: {error}\n")
        return 1
    try:
        packages = look(60.0 if daily else 180.0)
    except NotLookedError as error:
        sys.stdout.write(f"note: known vulnerabilities were not looked for: {error}\n")
        return 0
    findings = judged(packages, reviews, now.date())
    for note in findings.notes:
        sys.stdout.write(f"note: {note}\n")
    for fault in findings.faults:
        sys.stderr.write(f"error: {fault}\n")
    if findings.faults:
        sys.stderr.write(
            f"{len(findings.faults)} known vulnerabilities: lock other versions"
            f" (make lock UPGRADE=1), or review them in tools/{reviewed.name}\n"
        )
        return 1
    with contextlib.suppress(OSError):  # an environment that is not ours to write in
        stamp.write_text(f"{state()} {now.isoformat()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
