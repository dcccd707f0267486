"""Broken payloads by the million through the decoder; `make fuzz FUZZ=1000000`.

Each batch mixes good messages of every kind with mutations of them. Of every message exactly one
must become readings or be set aside with a reason, nothing may raise, and the good ones must give
the rows that they give alone.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.capture_log import GAP_TOPIC, SEGMENT_SCHEMA, Record
from iiot_platform.engine.decode import QUARANTINE_REASONS, Decoded, decode
from tests.servers.streams import line_records

BATCH: Final = 4_000
SETTINGS: Final = LineSettings(line="line1")
_REASONS: Final = {*QUARANTINE_REASONS, "gap"}
_TOKENS: Final = (
    b"null",
    b"true",
    b"-0",
    b"1e999",
    b"-1e-999",
    b"NaN",
    b"Infinity",
    b"9223372036854775808",
    b"1" * 400,
    b'""',
    b'"\\ud800"',
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b'{"SensorValue":1}',
    b"0.1e",
    b"\xff\xfe",
    b"\x00",
    b"\xef\xbb\xbf",
    "µ€𝄞".encode(),
)
_TOPICS: Final = (
    "line1",
    "line1/",
    "line1//x",
    "line1/press",
    "line1/press/a/b",
    "line1/ press/x",
    "line1/press/\x01",
    "other/press/x",
    f"{GAP_TOPIC}mqtt",
    "$SYS/x",
    "line1/" + "x" * 70_000,
    "line1/πρέσα/θ",
)


class BrokenLawError(AssertionError):
    """A batch broke the law; the message names its seed."""


@dataclass
class Tally:
    """What became of all messages."""

    messages: int = 0
    read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def set_aside(self) -> int:
        return self.reasons.total()


def corpus() -> list[Record]:
    """Good messages of every kind."""
    return line_records(3, 600)


def table_of(records: Sequence[tuple[int, Record]]) -> pa.Table:
    columns = {"offset": [offset for offset, _ in records]} | {
        name: [getattr(record, name) for _, record in records] for name in Record._fields
    }
    return pa.table(columns, schema=SEGMENT_SCHEMA)


def _flip(choose: random.Random, body: bytearray, _other: bytes) -> None:
    for _ in range(choose.randint(1, 4)):
        body[choose.randrange(len(body))] = choose.randrange(256)


def _cut(choose: random.Random, body: bytearray, _other: bytes) -> None:
    del body[choose.randrange(len(body)) :]


def _drop(choose: random.Random, body: bytearray, _other: bytes) -> None:
    start = choose.randrange(len(body))
    del body[start : start + choose.randint(1, 12)]


def _repeat(choose: random.Random, body: bytearray, _other: bytes) -> None:
    start = choose.randrange(len(body))
    part = body[start : start + choose.randint(1, 40)]
    body[start:start] = part * choose.choice((1, 2, 300))


def _splice(choose: random.Random, body: bytearray, other: bytes) -> None:
    body[choose.randrange(len(body)) :] = other[choose.randrange(len(other)) :]


def _insert(choose: random.Random, body: bytearray, _other: bytes) -> None:
    at = choose.randrange(len(body))
    body[at:at] = choose.choice(_TOKENS)


def _value(choose: random.Random, body: bytearray, _other: bytes) -> None:
    """Another value behind one of the colons: the shape stays."""
    colons = [at for at, byte in enumerate(body) if byte == ord(":")]
    if not colons:
        return
    start = choose.choice(colons) + 1
    end = start
    while end < len(body) and body[end] not in b",}]":
        end += 1
    body[start:end] = choose.choice(_TOKENS)


def _swap_case(choose: random.Random, body: bytearray, _other: bytes) -> None:
    start = choose.randrange(len(body))
    body[start : start + 8] = body[start : start + 8].swapcase()


_MUTATIONS: Final[Sequence[Callable[[random.Random, bytearray, bytes], None]]] = (
    _flip,
    _cut,
    _drop,
    _repeat,
    _splice,
    _insert,
    _value,
    _value,
    _swap_case,
)


def mutant(choose: random.Random, good: Sequence[Record]) -> Record:
    """A good message after one to three mutations, now and then under another topic."""
    record, other = choose.choice(good), choose.choice(good)
    body = bytearray(record.payload)
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        if body:
            choose.choice(_MUTATIONS)(choose, body, other.payload)
    topic = record.topic
    if choose.random() < 0.1:
        topic = choose.choice((*_TOPICS, other.topic))
    quality = choose.choice((*[0] * 12, 0x80000000, 0x40000000, 0xFFFFFFFF))
    source = choose.choice((None, None, record.received_ts, 0, -(2**62), 2**62))
    return record._replace(topic=topic, payload=bytes(body), quality=quality, source_ts=source)


def check(seed: int, size: int, good: Sequence[Record], tally: Tally) -> None:
    """Decodes one batch and holds the law against it.

    Raises:
        BrokenLawError: with the seed that makes the batch again.
    """
    choose = random.Random(seed)
    batch: list[tuple[int, Record]] = []
    sound: list[tuple[int, Record]] = []
    for offset in range(size):
        if choose.random() < 0.25:
            sound.append((offset, choose.choice(good)))
            batch.append(sound[-1])
        else:
            batch.append((offset, mutant(choose, good)))
    try:
        whole, alone = decode(table_of(batch), SETTINGS), decode(table_of(sound), SETTINGS)
    except Exception as error:
        raise BrokenLawError(f"seed {seed}, {size} messages: {error!r}") from error
    read, aside = set(whole.readings.offset.tolist()), [e.offset for e in whole.quarantine]
    problem = ""
    if read & set(aside) or len(aside) != len(set(aside)):
        problem = "a message is read and set aside, or set aside twice"
    elif len(read) + len(aside) != size:
        missing = sorted(set(range(size)) - read - set(aside))
        problem = f"{len(missing)} messages are gone, the first is {batch[missing[0]]}"
    elif unknown := {e.reason for e in whole.quarantine} - _REASONS:
        problem = f"reasons that nobody knows: {unknown}"
    elif rows_of(whole, {offset for offset, _ in sound}) != rows_of(alone):
        problem = "rubbish changes what good messages give"
    if problem:
        raise BrokenLawError(f"seed {seed}, {size} messages: {problem}")
    tally.messages += size
    tally.read += len(read)
    tally.reasons.update(e.reason for e in whole.quarantine)


def rows_of(decoded: Decoded, offsets: set[int] | None = None) -> list[str]:
    """The rows of some offsets, as text: NaN is not itself."""
    rows = decoded.readings.to_table().to_pylist()
    return [repr(row) for row in rows if offsets is None or row["offset"] in offsets]


def fuzz(count: int, seed: int, on_batch: Callable[[int], None] = lambda _: None) -> Tally:
    """Sends so many messages through the decoder; each batch has the seed after the last one."""
    tally, good = Tally(), corpus()
    while tally.messages < count:
        check(seed, min(BATCH, count - tally.messages), good, tally)
        seed += 1
        on_batch(tally.messages)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000_000)
    parsed = parser.parse_args(arguments)
    began = time.monotonic()
    columns = (TextColumn("seed {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as shown:
        task = shown.add_task(str(parsed.seed), total=parsed.count)
        try:
            tally = fuzz(parsed.count, parsed.seed, lambda done: shown.update(task, completed=done))
        except BrokenLawError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{tally.messages:,} messages = {tally.read:,} read + {tally.set_aside:,} set aside,"
        f" no exception, {seconds:.0f} s, seed {parsed.seed}\n"
    )
    for reason, count in tally.reasons.most_common():
        sys.stdout.write(f"  {reason:20} {count:>9,}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
