"""The runs that the pool has taken on."""

from pathlib import Path

from iiot_platform.orchestration.pool.journal import Journal


def test_what_is_not_over_is_still_there_after_a_kill(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for run_id in ("b", "a", "c"):
        journal.add(run_id)
    journal.remove("b")
    journal.remove("b")
    assert Journal(tmp_path).runs() == ["a", "c"]
