"""An OPC UA server as a source: how to be let in, and which of its nodes belong where."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from iiot_platform.config.errors import Problem
from iiot_platform.config.level_name import LevelName
from iiot_platform.core.errors import nearest
from iiot_platform.core.parameters import Parameters, PositiveFloat, PositiveInt

WILDCARDS: Final = frozenset("*?[")
SCHEME: Final = "opc.tcp"
DEFAULT_PORT: Final = 4840
_NODE_FORMS: Final = ("i=", "s=", "g=", "b=")
_QUEUE_LIMIT: Final = 10_000


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"should be a URL like {SCHEME}://host:{DEFAULT_PORT}") from error
    if parts.scheme != SCHEME or not parts.hostname or port == 0:
        raise ValueError(f"should be a URL like {SCHEME}://host:{DEFAULT_PORT}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("should hold no user and no password; give username and password_file")
    return url if port is not None else url.replace(parts.netloc, f"{parts.netloc}:{DEFAULT_PORT}")


def _path(path: str) -> str:
    names = path.split("/")
    if not all(name and name == name.strip() for name in names):
        raise ValueError("should be browse names below Objects, such as 'Plant/line2/oven/*'")
    return path


def _node_id(text: str) -> str:
    if text.startswith("ns="):
        raise ValueError(
            "should name its namespace by URI, nsu=<uri>;s=<name>: an index may change with the "
            "next start of the server"
        )
    uri, found, rest = text.removeprefix("nsu=").partition(";")
    if not text.startswith("nsu=") or not found or not uri:
        rest = text
    if not rest.startswith(_NODE_FORMS) or len(rest) == len("i="):
        raise ValueError("should be a node id such as 'nsu=urn:plc;s=MAIN.fbOven.fTemperature'")
    if rest.startswith("i=") and not rest.removeprefix("i=").isdecimal():
        raise ValueError("should have a number after 'i='")
    return text


class OpcUaNode(Parameters):
    """Nodes of a server, and the topic that they have here.

    Attributes:
        path: browse names from the Objects folder down, with `*` and `?`: below a folder all
            variables whose path has this shape.
        node: a node id with the URI of its namespace; stands instead of `path`.
        line: line that they belong to; default the only line of the source.
        machine: default the name above the node's own.
        device: default the node's own browse name.
        kind: what a scalar is: by default a number is a signal, a boolean or an enumeration a
            state. A structure carries its kind in its fields.
    """

    path: Annotated[str, AfterValidator(_path)] | None = None
    node: Annotated[str, AfterValidator(_node_id)] | None = None
    line: str | None = None
    machine: LevelName | None = None
    device: LevelName | None = None
    kind: Literal["signal", "state"] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.path is None) == (self.node is None):
            raise ValueError("should have either 'path' or 'node'")
        if self.node is not None and (self.machine is None or self.device is None):
            raise ValueError("should name 'machine' and 'device' beside 'node'")
        if self.path is not None:
            if self.device is not None and WILDCARDS & set(self.path):
                raise ValueError("one device for a path with wildcards; leave 'device' out")
            if self.machine is None and "/" not in self.path:
                raise ValueError("should name 'machine': the path has no level above the node")
        return self

    @property
    def text(self) -> str:
        """How the file names these nodes."""
        return self.path or self.node or ""


class OpcUaSource(Parameters):
    """An OPC UA server.

    Attributes:
        security: of the channel, with policy Basic256Sha256; our certificate is made at the
            first start and kept below `capture/pki` of the home.
        user_certificate_file: certificate (DER or PEM) of the user, instead of a user name; made
            with its key where neither file exists.
        user_key_file: its key (PEM, without a password).
        server_certificate_file: the certificate that the server must have (DER or PEM); default:
            the one that it shows first is trusted from then on.
        mode: `poll` reads instead of subscribing, for servers whose subscriptions fail.
        namespace: URI that browse names are looked up in; default any.
        report: `change` takes a value when it or its status has changed, `sample` also when its
            time alone has.
        keep_s: how long the server shall keep values while the connection is away, as far as it
            lets us.
        history: `fill` asks the server's history for what a gap lacks, where it has one.
        history_limit: values that are read for one gap at most.
        first_history_s: how far back the history is read at the very first start.
        queue_limit: values that may wait for the disk; beyond it the server is not asked.
    """

    name: LevelName = "opcua"
    kind: Literal["opcua"] = "opcua"
    url: Annotated[str, AfterValidator(_url)]
    security: Literal["none", "sign", "sign_and_encrypt"] = "none"
    username: Annotated[str, Field(min_length=1)] | None = None
    password: SecretStr | None = None
    user_certificate_file: Path | None = None
    user_key_file: Path | None = None
    server_certificate_file: Path | None = None
    mode: Literal["subscribe", "poll"] = "subscribe"
    publishing_interval_ms: PositiveFloat = 100.0
    sampling_interval_ms: PositiveFloat = 100.0
    report: Literal["change", "sample"] = "change"
    keep_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    history: Literal["fill", "off"] = "fill"
    history_limit: PositiveInt = 5_000_000
    first_history_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    queue_limit: PositiveInt = 100_000
    namespace: Annotated[str, Field(min_length=1)] | None = None
    nodes: Annotated[tuple[OpcUaNode, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("has a password but no username")
        if (self.user_certificate_file is None) != (self.user_key_file is None):
            raise ValueError("should have both user_certificate_file and user_key_file")
        if self.user_certificate_file is not None:
            if self.username is not None:
                raise ValueError("should have either username or user_certificate_file")
            if self.security == "none":
                raise ValueError("a user certificate needs security: sign_and_encrypt, or sign")
        return self

    @property
    def least_queue(self) -> int:
        """Values that the server must be able to hold for us between two publications."""
        return max(2, -int(-2 * self.publishing_interval_ms // self.sampling_interval_ms))

    @property
    def queue_size(self) -> int:
        """Values per node that we ask the server to hold."""
        kept = int(1_000 * self.keep_s / self.sampling_interval_ms)
        return max(self.least_queue, min(kept, _QUEUE_LIMIT))


def node_misfits(
    sources: Iterable[tuple[int, str, Iterable[tuple[int, str | None]]]],
    lines: Mapping[str, str | None],
    default_source: str | None,
) -> Iterator[Problem]:
    """Nodes whose line does not exist or has another source, and lines that are not named.

    Args:
        sources: place, name and nodes (place, line) of every OPC UA source.
        lines: each line's source.
        default_source: the source of lines that name none.
    """
    for i, name, nodes in sources:
        own = {line for line, source in lines.items() if (source or default_source) == name}
        for j, line in nodes:
            location = ("sources", i, "nodes", j)
            if line is None:
                if len(own) != 1:
                    which = ", ".join(sorted(own)) or "none"
                    yield Problem(
                        location, f"should name its line: the lines of source '{name}' are: {which}"
                    )
            elif line not in lines:
                hint = nearest(line, lines)
                yield Problem((*location, "line"), f"no line is called '{line}'; {hint}")
            elif line not in own:
                yield Problem(
                    (*location, "line"),
                    f"line '{line}' has another source; give the line 'source: {name}'",
                )


def outlined(
    sources: Iterable[tuple[int, Any]],
) -> Iterator[tuple[int, str, list[tuple[int, str | None]]]]:
    """The sources of `node_misfits`, from the plain values of a plant file as far as they go."""
    for i, source in sources:
        if not isinstance(source, dict) or source.get("kind") != "opcua":
            continue
        name, nodes = source.get("name", "opcua"), source.get("nodes")
        if isinstance(name, str) and isinstance(nodes, list):
            yield (
                i,
                name,
                [
                    (j, line if isinstance(line := node.get("line"), str) else None)
                    for j, node in enumerate(nodes)
                    if isinstance(node, dict)
                ],
            )
