"""`iiot opcua browse` and `iiot mqtt browse`: what is there, and the plant file's lines for it."""

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError, SourceError
from iiot_platform.core.sparkplug import PREFIX, topic_of

_ACTION = typer.Argument(help="What to do: browse.")
_URL_OPC = typer.Argument(help="The server, opc.tcp://host:4840.", metavar="URL")
_URL_MQTT = typer.Argument(help="The broker, mqtt://[user@]host:1883.", metavar="URL")
_PLANT = typer.Option("--plant", help="Print lines for the plant file.")
_JSON = typer.Option("--json", help="Print JSON.")
_PASSWORD = typer.Option(help="Environment variable that holds the password.", metavar="NAME")
_MQTT_PORT = 1883


def opcua(
    context: typer.Context,
    action: Annotated[Literal["browse"], _ACTION],  # noqa: ARG001 - the only one there is
    url: Annotated[str, _URL_OPC],
    *,
    security: Annotated[str, typer.Option(help="none, sign or sign_and_encrypt.")] = "none",
    username: Annotated[str | None, typer.Option()] = None,
    password_env: Annotated[str | None, _PASSWORD] = None,
    plant: Annotated[bool, _PLANT] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the variables below Objects, without the server's own, with type and value."""
    from buffer_service.sources.opcua_browse import browse, plant_lines  # noqa: PLC0415 - slow

    settings = Settings.from_environ(context.obj)
    try:
        source = OpcUaSource.model_validate(
            {
                # its certificate is trusted apart from those of the plant file's sources
                "name": f"browse {url.partition('://')[2].replace('/', ' ')}".strip(),
                "url": url,
                "security": security,
                "username": username,
                "password": None if password_env is None else context.obj.get(password_env),
                "nodes": [{"path": "*/*"}],
            }
        )
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{name}: {problem['msg']}") from error
    found = asyncio.run(browse(source, settings.home.capture / "pki"))
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found], indent=2, ensure_ascii=False))
    elif plant:
        typer.echo("\n".join(plant_lines(source, found)))
    else:
        for one in found:
            typer.echo(f"{one.path}  {one.type}  {one.value}\n    {one.node}")
        typer.echo(f"{len(found)} variables")


def mqtt(
    context: typer.Context,
    action: Annotated[Literal["browse"], _ACTION],  # noqa: ARG001 - the only one there is
    url: Annotated[str, _URL_MQTT],
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen.")] = 5.0,
    password_env: Annotated[str | None, _PASSWORD] = None,
    plant: Annotated[bool, _PLANT] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the topics that are heard, with the number of messages and the last one."""
    from iiot_platform.cli.mqtt_listener import heard  # noqa: PLC0415 - paho is slow to import

    parts = urlsplit(url if "://" in url else f"mqtt://{url}")
    if parts.password is not None:
        raise ConfigError("a password in a URL is seen by others; use --password-env NAME")
    if parts.scheme != "mqtt" or not parts.hostname:
        raise ConfigError(f"'{url}' should be a URL like mqtt://host:{_MQTT_PORT}")
    environ: Any = context.obj or os.environ
    password = None if password_env is None else environ.get(password_env)
    port = parts.port or _MQTT_PORT
    try:
        topics = heard(
            parts.hostname, port, seconds=seconds, username=parts.username, password=password
        )
    except OSError as error:
        raise SourceError(f"{parts.hostname}:{port}: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps(topics, indent=2, ensure_ascii=False))
    elif plant:
        typer.echo(f"sources:\n  - kind: mqtt\n    host: {parts.hostname}\n    port: {port}")
        if parts.username is not None:
            typer.echo(f"    username: {json.dumps(parts.username)}")
        typer.echo("\n".join(_lines(topics)))
    else:
        for topic, entry in sorted(topics.items()):
            typer.echo(f"{topic}  {entry['messages']}\n    {entry['last']}")
        typer.echo(f"{len(topics)} topics in {seconds:g} s")


def _lines(topics: Iterable[str]) -> Iterator[str]:
    """Lines for topics `<line>/<machine>/<device>`, and one for each Sparkplug group."""
    yield "lines:"
    own = {
        topic.split("/")[0]
        for topic in topics
        if topic.count("/") >= 2 and not topic.startswith(PREFIX)  # noqa: PLR2004 - line, machine, device
    }
    groups = {found.group for topic in topics if (found := topic_of(topic)) is not None}
    for name in sorted(own | groups):
        quoted = json.dumps(name, ensure_ascii=False)
        yield f"  - name: {quoted}"
        if name in groups:
            yield f"    sparkplug: {{nodes: [{{group: {quoted}}}]}}"
