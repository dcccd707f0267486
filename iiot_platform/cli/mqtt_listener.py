"""Listens to a broker for some seconds."""

import time
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from iiot_platform.core import sparkplug
from iiot_platform.core.errors import DecodeError, SourceError

MOST_TOPICS: Final = 10_000
_LONGEST_TEXT: Final = 120

Births = dict[str, dict[int, tuple[str, int]]]
"""Name and data type by alias, of each Sparkplug node and device."""


def heard(
    host: str, port: int, *, seconds: float, username: str | None, password: str | None
) -> dict[str, dict[str, Any]]:
    """Topics with the number of their messages and the beginning of the last one.

    Raises:
        SourceError: the broker refuses.
        OSError: it can not be reached.
    """
    topics: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    births: Births = {}

    def connected(client: Any, _: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            refused.append(str(code))
        else:
            client.subscribe("#")

    def message(_client: Any, _: Any, got: paho.MQTTMessage) -> None:
        if got.topic in topics or len(topics) < MOST_TOPICS:
            entry = topics.setdefault(got.topic, {"messages": 0, "last": ""})
            entry["messages"] += 1
            text = shown(got.topic, bytes(got.payload), births)
            entry["last"] = text[:_LONGEST_TEXT]

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if username is not None:
        client.username_pw_set(username, password)
    client.on_connect = connected
    client.on_message = message
    client.connect(host, port)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not refused:
        client.loop(min(0.1, max(until - time.monotonic(), 0.001)))
    client.disconnect()
    if refused:
        raise SourceError(f"{host}:{port} refused the connection: {refused[0]}")
    return topics


def shown(topic: str, payload: bytes, births: Births) -> str:
    """A payload as text; of Sparkplug its metrics, by name where their birth was heard.

    Args:
        topic: its topic.
        payload: its bytes.
        births: what was heard of births, which further ones extend.
    """
    place = sparkplug.topic_of(topic)
    if place is None:
        return payload[:_LONGEST_TEXT].decode("utf-8", "replace")
    try:
        content = sparkplug.decode(payload)
    except DecodeError as error:
        return str(error)
    if place.type in {"NBIRTH", "DBIRTH"}:
        births[place.name] = {
            metric.alias: (metric.name or "", metric.datatype or 0)
            for metric in content.metrics
            if metric.alias is not None
        }
    known = births.get(place.name, {})
    parts = []
    for metric in content.metrics:
        name, datatype = known.get(metric.alias or 0, ("", 0))
        value = metric.value
        if not isinstance(value, str | bool):
            number = sparkplug.number(metric.datatype or datatype, value)
            value = value if number is None else number
        name = metric.name or name or f"#{metric.alias}"
        parts.append(f"{name}={'?' if metric.other else value}")
    return ", ".join(parts)
