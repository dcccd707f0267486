"""Damage of every kind is found, named, and does not hide another line."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iiot_platform.core.capture_log import SEGMENT_SCHEMA
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_verify import SealedLog
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, signal

LINE = "line1"


def change(home: Home, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        assert manifest.execute(sql, values).rowcount == 1


def rewrite(home: Home, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Edits the second segment and makes its content hash right again."""
    segment = SealedLog(home).segments(LINE)[1]
    path = home.capture / segment.path
    rows = edit(pq.read_table(path, schema=SEGMENT_SCHEMA))
    pq.write_table(rows, path)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest()
    change(home, "UPDATE segments SET content_hash = ? WHERE stream = ? AND lo = 10", digest, LINE)


def with_payload(rows: pa.Table, payload: bytes) -> pa.Table:
    payloads = [*rows.column("payload").to_pylist()[:-1], payload]
    index = rows.schema.get_field_index("payload")
    return rows.set_column(index, SEGMENT_SCHEMA.field(index), pa.array(payloads, pa.binary()))


def shifted(rows: pa.Table) -> pa.Table:
    offsets = [*range(10, 15), *range(16, 21)]
    return rows.set_column(0, SEGMENT_SCHEMA.field(0), pa.array(offsets, pa.int64()))


def second(home: Home) -> Path:
    return home.capture / SealedLog(home).segments(LINE)[1].path


DAMAGES: dict[str, tuple[str, tuple[int, int], Callable[[Home], object]]] = {
    "file away": ("missing_file", (10, 20), lambda home: second(home).unlink()),
    "a byte flipped": (
        "content_hash",
        (10, 20),
        lambda home: second(home).write_bytes(second(home).read_bytes()[:-1] + b"?"),
    ),
    "a payload exchanged": (
        "chain",
        (10, 20),
        lambda home: rewrite(home, lambda rows: with_payload(rows, b"{}")),
    ),
    "a record taken out": ("hole", (10, 20), lambda home: rewrite(home, lambda r: r.slice(0, 9))),
    "offsets with a hole": ("hole", (10, 20), lambda home: rewrite(home, shifted)),
    "segment unlisted": (
        "hole",
        (10, 20),
        lambda home: change(home, "DELETE FROM segments WHERE stream = ? AND lo = 10", LINE),
    ),
    "segments that overlap": (
        "overlap",
        (9, 20),
        lambda home: change(home, "UPDATE segments SET lo = 9 WHERE stream = ? AND lo = 10", LINE),
    ),
    "no Parquet": (
        "unreadable",
        (10, 20),
        lambda home: (
            second(home).write_bytes(b"no parquet"),
            change(
                home,
                "UPDATE segments SET content_hash = ? WHERE stream = ? AND lo = 10",
                hashlib.blake2b(b"no parquet", digest_size=32).hexdigest(),
                LINE,
            ),
        ),
    ),
}


@pytest.fixture
def sealed(home: Home) -> Home:
    for line in (LINE, "line2"):
        records = [signal("t", BASE_MS + i, float(i), line=line) for i in range(35)]
        write_segments(home, line, records, rows=10)
    return home


def test_a_sound_log_is_sound(sealed: Home) -> None:
    log = SealedLog(sealed)
    seen: list[int] = []
    verdict = log.verify(LINE, seen.append)
    assert verdict.damage is None
    assert (verdict.segments, verdict.records, verdict.head, sum(seen)) == (4, 35, 35, 35)
    assert verdict.chain_hash == log.segments(LINE)[-1].chain_hash
    assert log.lines() == [LINE, "line2"]


@pytest.mark.parametrize("name", DAMAGES)
def test_the_first_damage_is_named_and_the_other_line_is_sound(sealed: Home, name: str) -> None:
    kind, span, damage = DAMAGES[name]
    damage(sealed)
    log = SealedLog(sealed)
    found = log.verify(LINE)
    assert found.damage is not None
    assert (found.damage.kind, (found.damage.lo, found.damage.hi)) == (kind, span)
    assert (found.segments, found.records) == (1, 10)
    assert found.damage.detail
    assert log.verify("line2").damage is None


def test_of_two_damages_the_first_is_named(sealed: Home) -> None:
    for segment in SealedLog(sealed).segments(LINE)[1:3]:
        (sealed.capture / segment.path).unlink()
    damage = SealedLog(sealed).verify(LINE).damage
    assert damage is not None
    assert damage.lo == 10


def test_a_home_without_a_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="IIOT_HOME"):
        SealedLog(Home(tmp_path)).lines()
