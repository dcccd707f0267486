"""Hours of a line in a folder, from which another machine computes them to the same bits.

The folder holds the segments with every record of the hours, and what else the hours follow
from: the settings assigned to them, the offsets that they need, and the states that their series
started from. It also says what came out, so that the other machine can compare.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.capture_log import CHAIN_START, content_hash, file_hash
from iiot_platform.core.clock import from_ms, hour_start_ms, now_ms, partition_key
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lifecycle_ledger import LedgerHistory
from iiot_platform.engine.log_verify import (
    LineVerdict,
    Missing,
    SealedLog,
    SealedSegment,
    verify_files,
)
from iiot_platform.engine.table_store import TableStore

EXPORT_FILE: Final = "export.json"
PLANT_FILE: Final = "plant.yaml"
LEDGER_FILE: Final = "ledger.json"
README_FILE: Final = "README.md"
FORMAT: Final = 1


class State(msgspec.Struct, frozen=True):
    """The state of a series before the first hour."""

    series: str
    hour: int
    blob: bytes
    hash: str
    frontier: int


class Hour(msgspec.Struct, frozen=True):
    """What an hour follows from besides the log."""

    hour: int
    settings: str
    ranges: list[tuple[int, int]]


class Spoken(msgspec.Struct, frozen=True):
    """A birth or death of a Sparkplug node that the records are read with."""

    offset: int
    topic: str
    received: int
    payload: bytes


class LedgerPart(msgspec.Struct, frozen=True):
    """What the ledger says of the hours; `settings` by version, as JSON."""

    hours: list[Hour]
    settings: dict[str, str]
    states: list[State]
    lifecycle: list[Spoken] = []


class Outcome(msgspec.Struct, frozen=True):
    """What an hour came to: hashes of its tables' rows, and of the states that it hands on."""

    settled: bool
    tables: dict[str, str]
    states: dict[str, str]


class Export(msgspec.Struct, frozen=True):
    """What a folder holds; offsets [lo, hi), hashes hex.

    Attributes:
        format: version of this form.
        line: name of the line.
        hours: the hours that can be computed from it.
        lo: first offset in the segments.
        hi: offset behind the last one.
        chain_before: chain hash up to `lo`.
        chain_after: chain hash up to `hi`.
        exported_ms: when, Unix ms.
        code_version: code that had computed the hours.
        segments: the files, in order of offsets; their paths are relative to the folder.
        files: hashes of the other files.
        outcome: by hour, what it came to where it was exported.
    """

    format: int
    line: str
    hours: list[int]
    lo: int
    hi: int
    chain_before: str
    chain_after: str
    exported_ms: int
    code_version: str
    segments: list[SealedSegment]
    files: dict[str, str]
    outcome: dict[str, Outcome]


def outcome(ledger: Ledger, store: TableStore, line: str, hour: int) -> Outcome:
    """What stands of an hour.

    Raises:
        StorageError: tables or ledger can not be read.
    """
    tables = {}
    for name, files in ledger.hour_files(line, hour).items():
        rows = store.read(schema.TABLES[name], [file.path for file in files])
        if len(rows):
            tables[name] = canonical_hash(schema.TABLES[name], rows)
    states = {key.text: state.hash for key, state in ledger.states_of(line, hour).items()}
    query = sa.select(db.PARTITIONS.c.settled).where(
        db.PARTITIONS.c.line == line, db.PARTITIONS.c.hour == hour
    )
    with ledger.reading() as connection:
        settled = bool(connection.execute(query).scalar())
    return Outcome(settled, tables, states)


class Exporter:
    """Exports hours of one line.

    Args:
        sealed: the log.
        folder: the capture folder that its files are in.
        ledger: what the hours follow from.
        store: what they came to.
        line: name of the line.
    """

    def __init__(
        self, sealed: SealedLog, folder: Path, ledger: Ledger, store: TableStore, line: str
    ) -> None:
        self._sealed = sealed
        self._folder = folder
        self._ledger = ledger
        self._store = store
        self._line = line

    def export(
        self,
        hours: Sequence[int],
        target: Path,
        *,
        plant: bytes | None,
        on_segments: Callable[[int, int], None] = lambda *_: None,
    ) -> Export:
        """Writes hours to a folder that is new or empty.

        Args:
            hours: hours that were computed, oldest first.
            target: the folder.
            plant: text of the plant file in force.
            on_segments: told how many of how many segments are written.

        Raises:
            StorageError: there is nothing to export, some of it is gone, or a file can not be
                read or written.
        """
        if target.exists() and any(target.iterdir()):
            raise StorageError(f"'{target}' is not empty; name a new folder")
        part = self._ledger_part(hours)
        ranges = [found for hour in part.hours for found in hour.ranges]
        if not ranges:
            raise StorageError(
                f"line '{self._line}' has nothing computed in these hours; 'iiot status' says what"
                " was, and 'iiot batch' computes what is in the log"
            )
        lo, hi = min(lo for lo, _ in ranges), max(hi for _, hi in ranges)
        segments, before = self._span(lo, hi)
        try:
            target.mkdir(parents=True, exist_ok=True)
            copied = []
            for number, segment in enumerate(segments, 1):
                copied.append(self._copy(segment, target))
                on_segments(number, len(segments))
            part = msgspec.structs.replace(
                part, lifecycle=self._lifecycle(segments[0].lo, segments[-1].hi)
            )
            files = {LEDGER_FILE: _write(target / LEDGER_FILE, msgspec.json.encode(part))}
            if plant is not None:
                files[PLANT_FILE] = _write(target / PLANT_FILE, plant)
            export = Export(
                format=FORMAT,
                line=self._line,
                hours=list(hours),
                lo=segments[0].lo,
                hi=segments[-1].hi,
                chain_before=before,
                chain_after=segments[-1].chain_hash,
                exported_ms=now_ms(),
                code_version=code_version(),
                segments=copied,
                files=files,
                outcome={
                    partition_key(hour): outcome(self._ledger, self._store, self._line, hour)
                    for hour in hours
                },
            )
            (target / README_FILE).write_text(_readme(export), "utf-8")
            # last: a folder without it is no export
            body = msgspec.json.format(msgspec.json.encode(_named(export)), indent=1)
            (target / EXPORT_FILE).write_bytes(body)
        except OSError as error:
            raise StorageError(f"'{target}' can not be written: {error}") from error
        return export

    def _span(self, lo: int, hi: int) -> tuple[list[SealedSegment], str]:
        """The segments that hold offsets, all of them, and the chain hash before the first."""
        everything = self._sealed.segments(self._line)
        segments = [one for one in everything if one.hi > lo and one.lo < hi]
        missing = self._sealed.missing(self._line)
        gone = [hole for hole in missing if hole.hi > lo and hole.lo < hi]
        if gone or not segments:
            spans = ", ".join(f"[{hole.lo}, {hole.hi}): {hole.reason}" for hole in gone)
            raise StorageError(
                f"line '{self._line}' needs offsets [{lo}, {hi}) for these hours, and some are gone"
                f" ({spans or 'none is in the log'}): no other machine can compute them to the"
                " same bits; export later hours"
            )
        first = segments[0].lo
        chains = {one.hi: one.chain_hash for one in everything}
        chains |= {hole.hi: hole.chain_hash for hole in missing}
        return segments, chains.get(first, CHAIN_START.hex())

    def _copy(self, segment: SealedSegment, target: Path) -> SealedSegment:
        relative = f"segments/{segment.lo:016d}-{segment.hi:016d}.parquet"
        copy = target / relative
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(self._folder / segment.path, copy)
        if file_hash(copy) != segment.content_hash:
            raise StorageError(
                f"{self._folder / segment.path} is not what was sealed; 'iiot log verify' says more"
            )
        return segment._replace(path=relative)

    def _ledger_part(self, hours: Sequence[int]) -> LedgerPart:
        settings: dict[str, str] = {}
        found = []
        for hour in hours:
            assigned = self._ledger.assignment(self._line, hour)
            if assigned is None:
                continue
            settings[assigned.version] = assigned.model_dump_json()
            ranges = self._ledger.ranges(self._line, hour)
            found.append(Hour(hour, assigned.version, ranges))
        return LedgerPart(found, settings, self._states(hours[0]) if hours else [])

    def _lifecycle(self, lo: int, hi: int) -> list[Spoken]:
        """The births and deaths that offsets [lo, hi) are read with."""
        history = LedgerHistory(self._ledger, self._line)
        return [Spoken(*event) for event in sorted(history.events(history.nodes(), lo, hi))]

    def _states(self, before: int) -> list[State]:
        """The last state of every series before an hour."""
        query = sa.select(db.STATES.c.series).where(
            db.STATES.c.line == self._line, db.STATES.c.hour < before
        )
        with self._ledger.reading() as connection:
            names = sorted(connection.execute(query.distinct()).scalars())
        keys = [SeriesKey.parse(name) for name in names]
        return [
            State(key.text, found.hour, found.state.blob, found.state.hash, found.state.frontier)
            for key, found in self._ledger.states(self._line, keys, before=before).items()
        ]


def read_export(folder: Path) -> tuple[Export, LedgerPart]:
    """What a folder holds; its small files are what was exported.

    Raises:
        StorageError: it is no export, one of another form, or it was changed.
    """
    try:
        body = json.loads((folder / EXPORT_FILE).read_bytes())
        if body.get("format") != FORMAT:
            raise StorageError(
                f"'{folder}' has form {body.get('format')}, this platform reads {FORMAT}"
            )
        body["segments"] = [SealedSegment(**one) for one in body["segments"]]
        export = msgspec.convert(body, Export)
        for name, digest in export.files.items():
            if name not in (LEDGER_FILE, PLANT_FILE) or file_hash(folder / name) != digest:
                raise StorageError(f"'{folder / name}' is not what was exported; copy it again")
        part = msgspec.json.decode((folder / LEDGER_FILE).read_bytes(), type=LedgerPart)
        for version, text in part.settings.items():
            if LineSettings.model_validate_json(text).version != version:
                raise StorageError(f"'{folder}': settings {version} are not what they are called")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"'{folder}' is no export of a log: {error}") from error
    return export, part


def verify_export(
    folder: Path, export: Export, on_records: Callable[[int], None] = lambda _: None
) -> LineVerdict:
    """Checks every segment of a folder: hash, offsets, and the chain of its records."""
    before = [Missing(0, export.lo, "not exported", export.chain_before)] if export.lo else []
    return verify_files(folder, export.line, export.segments, before, on_records)


def rerun_command(export: Export) -> str:
    """What computes the hours of an export where it was imported."""
    first, behind = (
        f"{from_ms(hour_start_ms(hour)):%Y-%m-%dT%H:%MZ}"
        for hour in (export.hours[0], export.hours[-1] + 1)
    )
    return f"iiot rerun --line '{export.line}' --from {first} --to {behind}"


def _named(export: Export) -> dict[str, object]:
    """The export with segments whose fields have names."""
    return {
        **msgspec.structs.asdict(export),
        "segments": [segment._asdict() for segment in export.segments],
    }


def _write(path: Path, body: bytes) -> str:
    path.write_bytes(body)
    return content_hash(body)


def _readme(export: Export) -> str:
    first, last = partition_key(export.hours[0]), partition_key(export.hours[-1])
    return f"""# Line {export.line}, hours {first} to {last} (UTC)

Raw records of the capture log, offsets {export.lo} to {export.hi - 1} in {len(export.segments)}
segments, with what else these hours follow from: settings, states of the series before the first
hour, and the plant file in force (secrets are names in it). `{EXPORT_FILE}` has the hash of every
file, the chain hash over the records, and a hash of every table and state that came out.

```bash
iiot log verify --export .     # is it what was exported?
iiot log import .              # into the home that IIOT_HOME names; its buffer must not run
{rerun_command(export)}
iiot log verify --export . --computed    # the same bits as where it came from?
```
"""
