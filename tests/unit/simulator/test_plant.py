import hashlib
import itertools
import json
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.plant import Chunk, SimulatedPlant
from simulator.scenario_file import load_scenario
from tests.servers.effort import BROAD

T0 = 1_790_000_000_000
PLANT = SimulatedPlant(load_scenario(), anchor_ms=T0)


def joined(chunks: list[Chunk]) -> Chunk:
    return Chunk(
        [message for chunk in chunks for message in chunk.messages],
        [label for chunk in chunks for label in chunk.labels],
    )


def test_thirteen_and_forty_seven_seconds_are_sixty() -> None:
    whole = PLANT.chunk(T0, T0 + 60_000)
    parts = [PLANT.chunk(T0, T0 + 13_000), PLANT.chunk(T0 + 13_000, T0 + 60_000)]
    assert len(whole.messages) > 1_800
    assert joined(parts) == whole


@BROAD
@given(
    start=st.integers(0, 10**9),
    cuts=st.lists(st.integers(0, 30_000), max_size=4),
)
def test_cuts_change_nothing(start: int, cuts: list[int]) -> None:
    begin = T0 + start
    edges = [begin, *sorted(begin + cut for cut in cuts), begin + 30_000]
    parts = [PLANT.chunk(lo, hi) for lo, hi in itertools.pairwise(edges)]
    assert joined(parts) == PLANT.chunk(begin, begin + 30_000)


def test_same_seed_same_bytes_and_another_seed_other_bytes() -> None:
    scenario = load_scenario()
    again = SimulatedPlant(scenario, anchor_ms=T0).chunk(T0, T0 + 20_000)
    other = SimulatedPlant(
        scenario.model_copy(update={"seed": scenario.seed + 1}), anchor_ms=T0
    ).chunk(T0, T0 + 20_000)
    first = PLANT.chunk(T0, T0 + 20_000)
    assert again == first
    assert not {m.payload for m in other.messages} & {
        m.payload for m in first.messages if b"SensorValue" in m.payload
    }


def test_a_line_alone_says_what_it_says_in_the_plant() -> None:
    alone = SimulatedPlant(load_scenario().only(("line2",)), anchor_ms=T0).chunk(T0, T0 + 60_000)
    whole = PLANT.chunk(T0, T0 + 60_000)
    assert alone.messages == [m for m in whole.messages if m.line == "line2"]
    assert alone.labels == [found for found in whole.labels if found.label.line == "line2"]


def test_messages_are_due_in_order_within_their_interval() -> None:
    due = [m.due_ms for m in PLANT.chunk(T0, T0 + 60_000).messages]
    assert due == sorted(due)
    assert due[0] >= T0
    assert due[-1] < T0 + 60_000


def test_each_line_may_begin_later() -> None:
    chunk = PLANT.chunk(T0, T0 + 20_000, from_ms={"line1": T0 + 10_000, "line2": T0})
    whole = PLANT.chunk(T0, T0 + 20_000)
    assert chunk.messages == [
        m for m in whole.messages if m.line == "line2" or m.due_ms >= T0 + 10_000
    ]


def test_rate_and_faults_of_the_default_plant() -> None:
    chunks = [PLANT.chunk(T0 + i * 60_000, T0 + (i + 1) * 60_000) for i in range(10)]
    rate = sum(len(chunk.messages) for chunk in chunks) / 600
    assert 30 < rate < 45
    assert min(len(chunk.labels) for chunk in chunks) >= 2
    assert sum(len(chunk.labels) for chunk in chunks) > 40


def test_time_stamps_rise_per_topic_unless_a_clock_is_wrong() -> None:
    stamps: dict[str, list[int]] = defaultdict(list)
    for message in PLANT.chunk(T0, T0 + 60_000).messages:
        stamps[message.topic].append(json.loads(message.payload)["TimeStamp"])
    assert len(stamps) == 20
    for topic, times in stamps.items():
        if topic != "line2/oven/exhaust_flow":
            assert (np.diff(times) > 0).all(), topic


def test_bytes_are_pinned() -> None:
    """A change here means that a running plant does not go on with the values it had."""
    digest = hashlib.blake2b(digest_size=8)
    for message in PLANT.chunk(T0, T0 + 60_000).messages:
        digest.update(message.topic.encode() + message.payload)
    assert digest.hexdigest() == "49f9699cb006917b"
