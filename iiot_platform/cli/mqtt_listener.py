"""Listens to a broker for some seconds."""

import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho

from buffer_service.sources import mqtt_failures
from iiot_platform.config.broker_client import BrokerClient
from iiot_platform.config.plant import MqttSource
from iiot_platform.core import sparkplug
from iiot_platform.core.errors import DecodeError, SourceError

MOST_TOPICS: Final = 10_000
_LONGEST_TEXT: Final = 120
_ANSWER_S: Final = 10.0
"""How long a broker may take to confirm the subscription."""

Births = dict[str, dict[int, tuple[str, int]]]
"""Name and data type by alias, of each Sparkplug node and device."""


def heard(
    source: MqttSource, *, seconds: float, chosen: Callable[[str], bool]
) -> dict[str, dict[str, Any]]:
    """Topics with the number of their messages and the beginning of the last one.

    Args:
        source: the broker.
        seconds: how long to listen, from the subscription on.
        chosen: which topics are asked for.

    Raises:
        SourceError: the broker can not be reached, refuses, or closes the connection.
    """
    topics: dict[str, dict[str, Any]] = {}
    accepted: list[bool] = []
    refused: list[str] = []
    births: Births = {}
    until = time.monotonic() + max(seconds, _ANSWER_S)
    where = f"{source.host}:{source.port}"

    def connected(client: Any, _: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            refused.append(mqtt_failures.refused(str(code), source))
        else:
            accepted.append(True)
            client.subscribe("#")

    def subscribed(*_: Any) -> None:
        nonlocal until
        until = time.monotonic() + seconds

    def message(_client: Any, _: Any, got: paho.MQTTMessage) -> None:
        text = shown(got.topic, bytes(got.payload), births)  # also for the births of what is chosen
        if chosen(got.topic) and (got.topic in topics or len(topics) < MOST_TOPICS):
            entry = topics.setdefault(got.topic, {"messages": 0, "last": ""})
            entry["messages"] += 1
            entry["last"] = text[:_LONGEST_TEXT]

    client = BrokerClient(source, source.client_id)
    client.on_connect = connected
    client.on_subscribe = subscribed
    client.on_message = message
    try:
        client.connect(source.host, source.port)
    except OSError as error:
        raise SourceError(f"{where}: {mqtt_failures.not_reached(error, source)}") from error
    while time.monotonic() < until and not refused:
        code = client.loop(min(0.1, max(until - time.monotonic(), 0.001)))
        if code != paho.MQTT_ERR_SUCCESS and not refused:
            detail = paho.error_string(code)
            refused.append(
                f"the connection broke: {detail}"
                if accepted
                else mqtt_failures.closed_early(source, detail)
            )
    client.disconnect()
    if refused:
        raise SourceError(f"{where}: {refused[0]}")
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
