"""Broken Sparkplug messages among good ones and among JSON, through the decoder.

Part of `make fuzz`. A broken birth may take the meaning from good data, so the law is another than
for payloads that stand alone: nothing raises, what can not be parsed is set aside once, whatever
is cut off in front is found in the history, and messages of other kinds do not notice.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.sparkplug import SparkplugNodes, SparkplugSettings
from iiot_platform.core import sparkplug
from iiot_platform.core.capture_log import Record
from iiot_platform.core.errors import DecodeError
from iiot_platform.engine.decode import QUARANTINE_REASONS, Decoded, decode
from iiot_platform.engine.lifecycle import Event
from tests.fuzz.payloads import BrokenLawError, Tally, mutant, rows_of, table_of
from tests.servers.sparkplug_feed import feed

BATCH: Final = 400
SETTINGS: Final = LineSettings(
    line="line1",
    sparkplug=SparkplugSettings(nodes=(SparkplugNodes(group="G"),)),
)
_TOPICS: Final = (
    "spBv1.0/G/NBIRTH/E1",
    "spBv1.0/G/NDEATH/E1",
    "spBv1.0/G/DDEATH/E1/D",
    "spBv1.0/G/DBIRTH/E2/node",
    "spBv1.0/G/DDATA/E1/\x01",
    "spBv1.0/G/DDATA/E1",
    "spBv1.0/STATE/x",
    "spBv1.0/",
)


class Known:
    """A history of what was decoded before."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = list(events)

    def events(self, nodes: Iterable[str], lo: int, hi: int) -> list[Event]:  # noqa: ARG002 - the protocol's
        wanted = set(nodes)
        return [e for e in self._events if e.source.node in wanted and e.offset < hi]


def check(seed: int, size: int, tally: Tally) -> None:
    """Decodes one batch and holds the law against it.

    Raises:
        BrokenLawError: with the seed that makes the batch again.
    """
    choose = random.Random(seed)
    good = feed(seed, size)
    batch = []
    for record in good:
        broken = record
        if record.topic.startswith(sparkplug.PREFIX) and choose.random() < 0.4:
            broken = mutant(choose, [record])._replace(topic=record.topic)
            if choose.random() < 0.1:
                broken = broken._replace(topic=choose.choice(_TOPICS))
        batch.append(broken)
    numbered = list(enumerate(batch))
    cut = choose.randrange(1, len(batch))
    try:
        whole = decode(table_of(numbered), SETTINGS)
        behind = decode(table_of(numbered[cut:]), SETTINGS, Known(whole.lifecycle))
        other = [pair for pair in numbered if not pair[1].topic.startswith(sparkplug.PREFIX)]
        alone = decode(table_of(other), SETTINGS)
    except Exception as error:
        raise BrokenLawError(f"Sparkplug, seed {seed}, {size} messages: {error!r}") from error
    problem = _problem(batch, whole)
    if rows_of(whole, {offset for offset, _ in other}) != rows_of(alone):
        problem = "rubbish changes what other messages give"
    elif rows_of(whole, set(range(cut, len(batch)))) != rows_of(behind):
        problem = f"behind {cut} messages the others mean something else"
    if problem:
        raise BrokenLawError(f"Sparkplug, seed {seed}, {size} messages: {problem}")
    tally.messages += len(batch)
    tally.read += len(set(whole.readings.offset.tolist()))
    tally.reasons.update(e.reason for e in whole.quarantine)


def _problem(batch: Sequence[Record], whole: Decoded) -> str:
    unknown = {e.reason for e in whole.quarantine} - {*QUARANTINE_REASONS, "gap"}
    if unknown:
        return f"reasons that nobody knows: {unknown}"
    aside = Counter(e.offset for e in whole.quarantine if e.reason != "gap")
    for offset, record in enumerate(batch):
        if sparkplug.topic_of(record.topic) is None:
            continue
        try:
            sparkplug.decode(record.payload)
        except DecodeError:
            if aside[offset] != 1:
                return f"message {offset} can not be parsed; it is set aside {aside[offset]} times"
    return ""


def fuzz(count: int, seed: int) -> Tally:
    """Sends so many messages through the decoder; each batch has the seed after the last one."""
    tally = Tally()
    while tally.messages < count:
        check(seed, BATCH, tally)
        seed += 1
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000_000)
    parsed = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        tally = fuzz(parsed.count, parsed.seed)
    except BrokenLawError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"{tally.messages:,} messages of Sparkplug nodes, {tally.read:,} read at least in part, no"
        f" exception, {time.monotonic() - began:.0f} s, seed {parsed.seed}\n"
    )
    for reason, count in tally.reasons.most_common():
        sys.stdout.write(f"  {reason:20} {count:>9,}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
