import asyncio
from datetime import UTC, datetime, timedelta

from asyncua import ua

from simulator.opcua_history import PlantHistory, Said

NODE = ua.NodeId(ua.String("line2/oven/flow"), ua.Int16(2))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def filled(times: list[int], *, keep_s: float = 60.0, page: int = 3) -> PlantHistory:
    history = PlantHistory(keep_s, page)
    history.encode = lambda _topic, said: ua.DataValue(ua.Variant(said.ts_ms))
    for ms in times:
        history.add("line2/oven/flow", Said(ms, b""))
    return history


def read(history: PlantHistory, begin: int, end: int, limit: int = 0) -> tuple[list[int], int]:
    values, rest = asyncio.run(history.read_node_history(NODE, at(begin), at(end), limit))
    left = -1 if rest is None else (rest - EPOCH) // timedelta(milliseconds=1)
    return [value.Value.Value for value in values if value.Value is not None], left


def test_pages_end_where_the_next_begins() -> None:
    history = filled([10, 20, 30, 40, 50])
    assert read(history, 10, 50) == ([10, 20, 30], 40)
    assert read(history, 40, 50) == ([40, 50], -1)
    assert read(history, 10, 50, limit=2) == ([10, 20], 30)
    assert read(history, 11, 39) == ([20, 30], -1)


def test_values_of_one_time_stay_on_one_page() -> None:
    assert read(filled([10, 20, 30, 30, 40]), 10, 40) == ([10, 20], 30)


def test_what_is_old_is_let_go() -> None:
    assert read(filled([0, 500, 1_400], keep_s=1.0), 0, 2_000) == ([500, 1_400], -1)
