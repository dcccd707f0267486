import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.core.sparkplug import rebirth_command
from simulator.sparkplug import _values
from simulator.sparkplug_wire import Metric, asks_for_rebirth, datatype_of, encoded
from tests.servers.sparkplug import PAYLOAD, metric, payload

SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@given(
    value=SCALARS,
    alias=st.none() | st.integers(0, 2**64 - 1),
    name=st.none() | st.text(),
    ts=st.none() | st.integers(0, 2**63),
)
def test_what_is_written_is_read_by_another_implementation(
    value: float | str, alias: int | None, name: str | None, ts: int | None
) -> None:
    datatype = datatype_of(value)
    body = encoded([Metric(value, alias, name, datatype, ts)], timestamp_ms=ts, seq=7)
    found = PAYLOAD.FromString(body)
    assert found == PAYLOAD.FromString(
        payload(metric(value, datatype=datatype, name=name, alias=alias, ts=ts), ts=ts, seq=7)
    )


def test_no_value_is_null() -> None:
    (found,) = PAYLOAD.FromString(encoded([Metric(None, alias=1)])).metrics
    assert found.is_null
    assert found.WhichOneof("value") is None


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (rebirth_command(5), True),
        (payload(metric(value=True, datatype=11, name="Node Control/Rebirth")), True),
        (payload(metric(value=False, datatype=11, name="Node Control/Rebirth")), False),
        (payload(metric(value=True, datatype=11, name="Node Control/Reboot")), False),
        (b"", False),
    ],
)
def test_a_rebirth_is_understood(body: bytes, asks: bool) -> None:  # noqa: FBT001 - a parameter
    assert asks_for_rebirth(body) == asks


def test_scalars_of_an_object_become_metrics() -> None:
    fields = {"TimeStamp": 1, "LineName": "l", "On": True, "E": {"A": 1.5, "H": [1.0]}, "N": None}
    assert dict(_values(fields)) == {"On": True, "E/A": 1.5}
