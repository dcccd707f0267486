import pytest

from iiot_platform.orchestration.attempts import MAX_BACKOFF_S, Memory


def test_attempts_rise_while_the_state_stays() -> None:
    memory = Memory()
    assert [memory.ask("live:a", 7, 0) for _ in range(3)] == [1, 2, 3]
    assert memory.ask("live:b", 7, 0) == 1
    assert memory.ask("live:a", 8, 0) == 1


def test_the_second_attempt_comes_at_once_and_later_ones_ever_more_slowly() -> None:
    memory = Memory()
    waits = []
    for _ in range(12):
        memory.ask("live:a", 7, 1_000)
        waits.append(memory.wait_ms("live:a", 7, 1_000) // 1_000)
    assert waits[:4] == [0, 5, 10, 20]
    assert waits[-1] == MAX_BACKOFF_S
    assert memory.wait_ms("live:a", 7, 1_000 + MAX_BACKOFF_S * 1_000) == 0
    assert memory.wait_ms("live:a", 8, 1_000) == 0


def test_the_cursor_keeps_everything() -> None:
    memory = Memory()
    memory.ask("live:Línea 2", 7, 1_000)
    memory.observed["Línea 2"] = (5, 9)
    memory.lagging["Línea 2"] = 5
    assert Memory.from_cursor(memory.cursor) == memory


@pytest.mark.parametrize("cursor", [None, "", "null", "7", "{", '{"asked":{"a":[1]}}', "[]"])
def test_a_cursor_that_can_not_be_read_is_an_empty_memory(cursor: str | None) -> None:
    assert Memory.from_cursor(cursor) == Memory()


def test_work_that_is_over_is_forgotten() -> None:
    memory = Memory()
    for work in ("rerun:a:1", "rerun:a:2", "rerun:b:1", "live:a"):
        memory.ask(work, 1, 0)
    memory.forget("rerun:a:", keep={"rerun:a:2"})
    assert set(memory.asked) == {"rerun:a:2", "rerun:b:1", "live:a"}
