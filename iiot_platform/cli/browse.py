"""`iiot opcua browse` and `iiot mqtt browse`: what is there, and the plant file's lines for it."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from iiot_platform.cli.browse_lines import chooser, mqtt_lines, opcua_lines
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError, SourceError

_ACTION = typer.Argument(help="What to do: browse.")
_URL_OPC = typer.Argument(help="The server, opc.tcp://host:4840.", metavar="URL")
_URL_MQTT = typer.Argument(
    help="The broker, mqtt://[user@]host:1883 or, with TLS, mqtts://[user@]host:8883.",
    metavar="URL",
)
_PLANT = typer.Option("--plant", help="Print lines for the plant file.")
_JSON = typer.Option("--json", help="Print JSON.")
_PASSWORD = typer.Option(help="Environment variable that holds the password.", metavar="NAME")
_PATHS = typer.Option(
    "--match",
    help="Only paths of this shape, as 'Plant/line2/*'; * spans levels. May be repeated.",
    metavar="PATTERN",
)
_TOPICS = typer.Option(
    "--match",
    help="Only topics of this shape, as 'line2/*'; * spans levels. May be repeated.",
    metavar="PATTERN",
)


def _file(text: str) -> Any:
    return typer.Option(help=text, exists=True, dir_okay=False, metavar="FILE")


_PASSWORD_FILE = _file("File that holds the password.")
_CA = _file("Authority of the broker's certificate, for mqtts; default the system's.")
_CERTIFICATE = _file("Our certificate, where the broker wants one.")
_KEY = _file("Its key.")
_USER_CERTIFICATE = typer.Option(
    help="Certificate of the user; made with its key where neither is there.", metavar="FILE"
)
_USER_KEY = typer.Option(help="Its key.", metavar="FILE")
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


def opcua(
    context: typer.Context,
    action: Annotated[Literal["browse"], _ACTION],  # noqa: ARG001 - the only one there is
    url: Annotated[str, _URL_OPC],
    *,
    security: Annotated[str, typer.Option(help="none, sign or sign_and_encrypt.")] = "none",
    username: Annotated[str | None, typer.Option()] = None,
    password_env: Annotated[str | None, _PASSWORD] = None,
    password_file: Annotated[Path | None, _PASSWORD_FILE] = None,
    user_certificate_file: Annotated[Path | None, _USER_CERTIFICATE] = None,
    user_key_file: Annotated[Path | None, _USER_KEY] = None,
    match: Annotated[list[str] | None, _PATHS] = None,
    plant: Annotated[bool, _PLANT] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show the variables below Objects, without the server's own, with type and value."""
    from buffer_service.sources.opcua_browse import browse, tree  # noqa: PLC0415 - slow

    settings = Settings.from_environ(context.obj)
    fields = {
        # its certificate is trusted apart from those of the plant file's sources
        "name": f"browse {url.partition('://')[2].replace('/', ' ')}".strip(),
        "url": url,
        "security": security,
        "username": username,
        "password": _password(context, password_env, password_file),
        "user_certificate_file": user_certificate_file,
        "user_key_file": user_key_file,
        "nodes": [{"path": "*/*"}],
    }
    with _told():
        source = OpcUaSource.model_validate(fields)
    found = asyncio.run(browse(source, settings.home.capture / "pki", chooser(match)))
    if as_json:
        told = [one._asdict() for one in found.variables]
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif plant:
        paths = [one.path for one in found.variables]
        _refuse_nothing(paths, match, [*paths, *found.others], source.url)
        secret = _secret_line(password_env or "OPCUA_PASSWORD", password_file)
        typer.echo("\n".join(opcua_lines(source, paths, found.others, secret)))
    else:
        for line in tree(found.variables):
            typer.echo(line)
        count = len(found.variables)
        of = f" of {count + len(found.others)}" if match else ""
        typer.echo(f"{count}{of} variables")


def mqtt(
    context: typer.Context,
    action: Annotated[Literal["browse"], _ACTION],  # noqa: ARG001 - the only one there is
    url: Annotated[str, _URL_MQTT],
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen.")] = 5.0,
    password_env: Annotated[str | None, _PASSWORD] = None,
    password_file: Annotated[Path | None, _PASSWORD_FILE] = None,
    ca_file: Annotated[Path | None, _CA] = None,
    cert_file: Annotated[Path | None, _CERTIFICATE] = None,
    key_file: Annotated[Path | None, _KEY] = None,
    match: Annotated[list[str] | None, _TOPICS] = None,
    plant: Annotated[bool, _PLANT] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the topics that are heard, with the number of messages and the last one."""
    from iiot_platform.cli.mqtt_listener import heard  # noqa: PLC0415 - paho is slow to import

    tls = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    password = _password(context, password_env, password_file)
    source = _broker(url, password, {k: v for k, v in tls.items() if v is not None})
    topics = heard(source, seconds=seconds, chosen=chooser(match))
    if as_json:
        typer.echo(json.dumps(topics, indent=2, ensure_ascii=False))
    elif plant:
        _refuse_nothing(topics, match, (), f"{source.host}:{source.port}")
        secret = _secret_line(password_env or "MQTT_PASSWORD", password_file)
        typer.echo("\n".join(mqtt_lines(source, topics, secret, by_node=bool(match))))
    else:
        for topic, entry in sorted(topics.items()):
            typer.echo(f"{topic}  {entry['messages']}\n    {entry['last']}")
        typer.echo(f"{len(topics)} topics in {seconds:g} s")


def _broker(url: str, password: str | None, tls: Mapping[str, Path]) -> MqttSource:
    """The source that a URL and the options describe."""
    wrong = ConfigError(f"'{url}' should be a URL like mqtt://host:1883 or mqtts://host:8883")
    try:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if parts.password is not None:
        raise ConfigError("a password in a URL is seen by others; use --password-env NAME")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise wrong
    if tls and parts.scheme != "mqtts":
        raise ConfigError(f"'{url}': files of certificates are for mqtts://, which encrypts")
    if ("cert_file" in tls) != ("key_file" in tls):
        raise ConfigError("--cert-file and --key-file belong together; give both")
    fields = {
        "host": parts.hostname,
        "port": _PORTS[parts.scheme] if port is None else port,
        # the buffer's would throw it out
        "client_id": f"iiot-browse-{os.getpid()}",
        "username": parts.username,
        "password": password,
        "tls": tls if parts.scheme == "mqtts" else None,
    }
    with _told():
        return MqttSource.model_validate(fields)


def _password(context: typer.Context, name: str | None, file: Path | None) -> str | None:
    if name is not None and file is not None:
        raise ConfigError("--password-env and --password-file are both given; keep one of the two")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can not read '{file}': {error}") from error
    environ: Mapping[str, str] = os.environ if context.obj is None else context.obj
    if name is not None and name not in environ:
        raise ConfigError(f"environment variable {name} is not set; set it and try again")
    return None if name is None else environ[name]


def _secret_line(name: str, file: Path | None) -> str:
    """What the plant file says of the password; never the password."""
    if file is not None:
        return f"password_file: {json.dumps(str(file.resolve()), ensure_ascii=False)}"
    return f"password: ${{{name}}}"


@contextmanager
def _told() -> Iterator[None]:
    """The first problem of a source, without what was given."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{name}: {problem['msg']}") from error


def _refuse_nothing(
    found: Sequence[str] | Mapping[str, object],
    patterns: Sequence[str] | None,
    known: Sequence[str],
    where: str,
) -> None:
    """A plant file needs something to name."""
    if found:
        return
    what = f"nothing matches {', '.join(map(repr, patterns))}" if patterns else "nothing is there"
    such = f"; there are {', '.join(map(repr, known[:3]))}" if known else ""
    raise SourceError(f"{where}: {what}{such}")
