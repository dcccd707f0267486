"""The smallest outbox that keeps the contract, with a journal of what was called."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa


@dataclass(frozen=True)
class MemoryEntry:
    id: int
    table: str
    hour: int
    operation: Literal["upsert", "rewrite"]


@dataclass
class MemoryOutbox:
    entries: dict[int, MemoryEntry] = field(default_factory=dict)
    contents: dict[int, pa.Table] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    failure_count: int = 0
    retry_at_ms: int | None = None

    def add(
        self, table: str, hour: int, operation: Literal["upsert", "rewrite"], rows: pa.Table
    ) -> int:
        place = len(self.contents)
        self.entries[place] = MemoryEntry(place, table, hour, operation)
        self.contents[place] = rows
        return place

    def pending(self, line: str, limit: int) -> Sequence[MemoryEntry]:
        del line
        return list(self.entries.values())[:limit]

    def backlog(self, line: str) -> int:
        del line
        return len(self.entries)

    def rows(self, entry: MemoryEntry) -> pa.Table:
        return self.contents[entry.id]

    def begin(self, entry: MemoryEntry) -> None:
        assert entry.id in self.entries
        self.journal.append(f"begin {entry.id}")

    def done(self, entries: Sequence[MemoryEntry]) -> None:
        for entry in entries:
            del self.entries[entry.id]
        self.journal.append(f"done {' '.join(str(entry.id) for entry in entries)}")
        self.failure_count, self.retry_at_ms = 0, None

    def reject(self, entry: MemoryEntry, message: str) -> None:
        del self.entries[entry.id]
        self.rejected[entry.id] = message
        self.failure_count, self.retry_at_ms = 0, None

    def failed(self, line: str, message: str, retry_at_ms: int) -> None:
        self.journal.append(f"failed {line}: {message}")
        self.failure_count += 1
        self.retry_at_ms = retry_at_ms

    def failures(self, line: str) -> int:
        del line
        return self.failure_count

    def retry_at(self, line: str) -> int | None:
        del line
        return self.retry_at_ms
