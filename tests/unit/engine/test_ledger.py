"""The ledger: a commit is written whole, or says that it lost and writes nothing."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from iiot_platform.config.database import normalised
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.commit import Base, Commit, DirtyMark, FileChange, HourChange
from iiot_platform.engine.errors import CommitLostError, LedgerError, OtherLayoutError
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.ledger_database import SqliteLedger
from iiot_platform.engine.partition import SeriesState
from iiot_platform.engine.table_store import TableFile
from tests.servers.ports import free_port

SETTINGS = LineSettings(line="line1")
A, B = (SeriesKey("signal", "press", name) for name in ("a", "b"))
ONE, TWO = SeriesState(b"one", 1), SeriesState(b"two", 2)
NOW_MS = 1_000


@pytest.fixture
def ledger(home: Home) -> Ledger:
    return Ledger.of(home, sinks=("influxdb",), clock=lambda: NOW_MS)


def change(hour: int, version: int = 0, **more: object) -> HourChange:
    given = {"bases": {}, "states": {}, "files": ()} | more
    return HourChange(hour=hour, base_version=version, settings=SETTINGS, **given)  # type: ignore[arg-type]


def commit(lo: int, hi: int, *hours: HourChange, **more: object) -> Commit:
    given = {"kind": "live", "ranges": tuple(change.hour for change in hours)} | more
    return Commit(
        line="line1",
        lo=lo,
        hi=hi,
        run_id="run",
        code_version="code",
        hours=hours,
        **given,  # type: ignore[arg-type]
    )


def dump(ledger: Ledger) -> dict[str, list[tuple[object, ...]]]:
    with ledger.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table))]
            for table in db.METADATA.sorted_tables
        }


def test_a_commit_is_written_whole(ledger: Ledger) -> None:
    file = TableFile("p", rows=3, bytes=30, min_ts=1, max_ts=2)
    first = change(
        7,
        bases={A: None},
        states={A: ONE},
        files=(FileChange("signals", file), FileChange("activity", file, operation=None)),
        rows={"signals": 3},
    )
    mark = DirtyMark(6, A.text, "late", 2)
    assert ledger.commit(
        commit(0, 5, first, dirty=(mark,), counts=Counter(batches=1), ranges=(6, 7))
    ) == {7: 1}
    assert ledger.watermark("line1") == 5
    assert ledger.versions("line1", [6, 7]) == {6: 0, 7: 1}
    assert ledger.assignment("line1", 7) == SETTINGS
    assert ledger.states("line1", [A, B])[A] == (7, ONE)
    assert [file.path for file in ledger.files("line1", "signals", 7)] == ["p"]
    assert ledger.ranges("line1", 6) == ledger.ranges("line1", 7) == [(0, 5)]
    assert [found for _, found in ledger.dirty("line1")[6]] == [mark]
    assert ledger.counts("line1") == {"batches": 1}
    assert len(dump(ledger)["outbox"]) == 1
    assert ledger.batches("line1", 5)[0]["body"]["hours"][0]["rows"] == {"signals": 3}


LOST: dict[str, Callable[[Commit], Commit]] = {
    "watermark behind": lambda good: replace(good, lo=4),
    "watermark ahead": lambda good: replace(good, lo=6),
    "version behind": lambda good: replace(good, hours=(change(7, 0),)),
    "version ahead": lambda good: replace(good, hours=(change(7, 2),)),
    "a second hour's version": lambda good: replace(good, hours=(change(7, 1), change(8, 1))),
    "a state that has changed": lambda good: replace(
        good, hours=(change(8, bases={A: Base(7, TWO.hash)}, states={A: TWO}),)
    ),
    "a state of another hour": lambda good: replace(
        good, hours=(change(8, bases={A: Base(6, ONE.hash)}, states={A: TWO}),)
    ),
    "a state that is there now": lambda good: replace(
        good, hours=(change(8, bases={A: None}, states={A: TWO}),)
    ),
    "a state that is gone": lambda good: replace(
        good, hours=(change(8, bases={B: Base(7, ONE.hash)}, states={B: TWO}),)
    ),
}


@pytest.mark.parametrize("spoil", LOST.values(), ids=list(LOST))
def test_a_commit_that_lost_writes_nothing(
    ledger: Ledger, spoil: Callable[[Commit], Commit]
) -> None:
    ledger.commit(commit(0, 5, change(7, bases={A: None}, states={A: ONE})))
    good = commit(
        5, 9, change(8, bases={A: Base(7, ONE.hash)}, states={A: TWO}), counts=Counter(batches=1)
    )
    before = dump(ledger)
    with pytest.raises(CommitLostError, match="Nothing was written"):
        ledger.commit(spoil(good))
    assert dump(ledger) == before
    assert ledger.commit(good) == {8: 1}


def test_a_batch_may_go_on_from_a_state_that_it_makes_itself(ledger: Ledger) -> None:
    seven = change(7, bases={A: None}, states={A: ONE})
    eight = change(8, bases={A: Base(7, ONE.hash)}, states={A: TWO})
    assert ledger.commit(commit(0, 5, seven, eight)) == {7: 1, 8: 1}


def test_ranges_grow_where_they_touch(ledger: Ledger) -> None:
    for lo, hi, hours in ((0, 5, (7,)), (5, 9, (7, 8)), (9, 12, (8,)), (12, 15, (7,))):
        ledger.commit(commit(lo, hi, ranges=hours))
    assert ledger.ranges("line1", 7) == [(0, 9), (12, 15)]
    assert ledger.ranges("line1", 8) == [(5, 12)]


def test_assignments_are_kept_for_ever_and_the_last_one_counts(ledger: Ledger) -> None:
    other = LineSettings(line="line1", max_future_s=1)
    ledger.commit(commit(0, 1, change(7)))
    ledger.commit(commit(1, 2, replace(change(7, 1), settings=other)))
    ledger.commit(commit(2, 3, replace(change(7, 2), settings=other)))
    assert ledger.assignment("line1", 7) == other
    assert ledger.assignment("line1", 8) is None
    found = [row[3] for row in dump(ledger)["assignments"]]
    assert found == [SETTINGS.version, other.version]


def test_a_whole_hour_that_ends_elsewhere_marks_the_next_hour_of_each_series(
    ledger: Ledger,
) -> None:
    ledger.commit(commit(0, 1, change(7, bases={A: None, B: None}, states={A: ONE, B: ONE})))
    nine = change(9, bases={k: Base(7, ONE.hash) for k in (A, B)}, states={A: TWO, B: TWO})
    ledger.commit(commit(1, 2, nine))
    again = change(7, 1, states={A: TWO, B: ONE}, whole=True)
    ledger.commit(commit(0, 1, again, kind="rerun", ranges=()))
    marks = [mark for _, mark in ledger.dirty("line1")[9]]
    assert marks == [DirtyMark(9, A.text, "ripple", 0)]
    done = tuple(name for name, _ in ledger.dirty("line1")[9])
    ledger.commit(
        commit(
            0,
            1,
            replace(nine, base_version=1, bases={A: Base(7, TWO.hash)}, whole=True),
            kind="rerun",
            ranges=(),
            cleared=done,
        )
    )
    assert not ledger.dirty("line1")


def test_a_series_that_has_gone_marks_the_hour_that_went_on_from_it(ledger: Ledger) -> None:
    ledger.commit(commit(0, 1, change(7, bases={A: None}, states={A: ONE})))
    ledger.commit(commit(1, 2, change(8, bases={A: Base(7, ONE.hash)}, states={A: TWO})))
    ledger.commit(commit(0, 1, change(7, 1, gone=(A,), whole=True), kind="rerun", ranges=()))
    assert list(ledger.dirty("line1")) == [8]
    assert not ledger.states_of("line1", 7)


def test_many_series_go_through_in_pages(ledger: Ledger) -> None:
    keys = [SeriesKey("signal", "press", f"s{i}") for i in range(1_201)]
    ledger.commit(
        commit(0, 1, change(7, bases=dict.fromkeys(keys), states=dict.fromkeys(keys, ONE)))
    )
    assert set(ledger.states("line1", keys).values()) == {(7, ONE)}
    assert len(ledger.states("line1", keys)) == len(keys)


def test_a_damaged_ledger_says_so(home: Home) -> None:
    home.root.mkdir()
    home.ledger.write_bytes(b"no database" * 500)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(SqliteLedger(home.ledger))


def test_a_server_that_is_away_is_named_without_its_password(home: Home) -> None:
    away = replace(home, database=normalised(f"postgresql://me:geheim@127.0.0.1:{free_port()}/db"))
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1") as caught:
        Ledger.of(away)
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(away)


@pytest.mark.parametrize(
    "change_of_layout",
    [
        "ALTER TABLE counts ADD COLUMN more TEXT; UPDATE layout SET digest = 'of another version'",
        "DROP TABLE layout",
    ],
    ids=["other", "before there were layouts"],
)
def test_a_ledger_of_another_version_is_named_and_not_touched(
    ledger: Ledger, home: Home, change_of_layout: str
) -> None:
    ledger.commit(commit(0, 5, change(7)))
    with ledger.transaction() as connection:
        for statement in change_of_layout.split(";"):
            connection.execute(sa.text(statement))
    with pytest.raises(OtherLayoutError, match="made by another version"):
        Ledger.of(home)
    assert ledger.watermark("line1") == 5
    with ledger.transaction() as connection:  # as it was, for the tests behind
        connection.execute(sa.text("DROP TABLE IF EXISTS layout"))
        for table in reversed(db.METADATA.sorted_tables):
            table.drop(connection, checkfirst=True)


def test_processes_that_make_a_ledger_at_once_make_one(home: Home) -> None:
    with ThreadPoolExecutor(8) as threads:
        ledgers = list(threads.map(lambda _: Ledger.of(home), range(8)))
    assert ledgers[0].commit(commit(0, 5, change(7))) == {7: 1}
    assert {one.watermark("line1") for one in ledgers} == {5}
    for one in ledgers:
        one.close()
