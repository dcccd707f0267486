"""Which run begins next."""

import pytest

from iiot_platform.orchestration.pool.lineup import MAX_WAIT_S, Limits, Lineup, PoolRun

LIMITS = Limits(size=4, others=2, live_queue=3, others_queue=2)


def run(run_id: str, *, live: bool, since_s: float = 0.0) -> PoolRun:
    return PoolRun(run_id, live, since_s)


def lineup(*runs: PoolRun) -> Lineup:
    waiting = Lineup(LIMITS)
    for waits in runs:
        waiting.add(waits)
    return waiting


def test_live_runs_find_a_worker_however_many_others_wait() -> None:
    waiting = lineup(*(run(f"backfill {n}", live=False) for n in range(5)))
    running: list[PoolRun] = []
    while (taken := waiting.take(running, 1.0)) is not None:
        running.append(taken)
    assert [taken.run_id for taken in running] == ["backfill 0", "backfill 1"]
    live = run("live", live=True)
    waiting.add(live)
    assert waiting.take(running, 1.0) is live


def test_live_runs_come_first_and_each_kind_in_its_order() -> None:
    waiting = lineup(
        run("backfill", live=False), run("live 1", live=True), run("live 2", live=True)
    )
    taken = [waiting.take([], 1.0) for _ in range(4)]
    assert [found and found.run_id for found in taken] == ["live 1", "live 2", "backfill", None]


def test_nothing_begins_while_all_workers_are_busy() -> None:
    busy = [run(str(n), live=True) for n in range(LIMITS.size)]
    waiting = lineup(run("live", live=True), run("other", live=False))
    assert waiting.take(busy, MAX_WAIT_S) is None


@pytest.mark.parametrize("live", [True, False])
def test_who_has_waited_for_long_begins_beside_the_others(live: bool) -> None:  # noqa: FBT001 - a parameter
    busy = [run(str(n), live=True) for n in range(LIMITS.size)]
    waiting = lineup(run("late", live=live))
    late = waiting.take(busy, MAX_WAIT_S + 1)
    assert late is not None
    waiting.add(late)
    most = [run(str(n), live=True) for n in range(LIMITS.most)]
    assert waiting.take(most, MAX_WAIT_S + 1) is None


def test_a_full_queue_refuses_its_kind_alone() -> None:
    waiting = lineup(*(run(str(n), live=False) for n in range(LIMITS.others_queue)))
    refusal = waiting.refusal(run("one more", live=False))
    assert refusal == "2 other runs wait already"
    assert waiting.refusal(run("live", live=True)) is None


def test_a_run_that_waits_can_be_taken_out() -> None:
    waiting = lineup(run("a", live=True), run("b", live=False))
    assert waiting.holds("b")
    assert waiting.remove("b")
    assert not waiting.remove("b")
    assert [left.run_id for left in waiting.clear()] == ["a"]
    assert len(waiting) == 0


@pytest.mark.parametrize("others", [0, 4, 5])
def test_limits_leave_live_runs_a_worker(others: int) -> None:
    with pytest.raises(ValueError, match="should be 1 to 3"):
        Limits(size=4, others=others)
