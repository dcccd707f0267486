"""Sparkplug B in the plant file: which edge nodes a line has, and what becomes of their metrics."""

import fnmatch
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from iiot_platform.config.level_name import LevelName, level
from iiot_platform.core.parameters import Parameters
from iiot_platform.core.sparkplug import DEVICE_TYPES, NODE_TYPES, PREFIX, DataType, Topic

ANY: Final = "*"
Reading = Literal["signal", "state", "ignore"]


def _level_or_any(name: str) -> str:
    if name != ANY and ANY in name:
        raise ValueError(f"should be a whole name, or '{ANY}' for any; MQTT knows nothing between")
    return name if name == ANY else level(name)


def _metric_match(match: str) -> str:
    if match.count("/") < 2:  # noqa: PLR2004 - three parts
        raise ValueError("should be '<edge node>/<device>/<metric>', with '*' and '?'")
    return match


LevelOrAny = Annotated[str, AfterValidator(_level_or_any)]


class SparkplugNodes(Parameters):
    """Edge nodes of a line; each part is a whole name, or `*` for any.

    Attributes:
        group: the group ID.
        edge_node: the edge node ID.
        device: the device ID; the node's own messages come in any case.
    """

    group: LevelOrAny
    edge_node: LevelOrAny = ANY
    device: LevelOrAny = ANY

    def takes(self, topic: Topic) -> bool:
        """True where the message is one of these nodes', or of one of their devices."""
        return (
            self.group in {ANY, topic.group}
            and self.edge_node in {ANY, topic.edge_node}
            and (not topic.device or self.device in {ANY, topic.device})
        )

    def meets(self, other: "SparkplugNodes") -> bool:
        """True where one edge node could be of both."""
        return all(
            ANY in {mine, theirs} or mine == theirs
            for mine, theirs in (
                (self.group, other.group),
                (self.edge_node, other.edge_node),
            )
        )

    def shares_machine(self, other: "SparkplugNodes") -> bool:
        """True where nodes of two groups could have one name."""
        mine, theirs = self.edge_node, other.edge_node
        return self.group != other.group and (ANY in {mine, theirs} or mine == theirs)

    @property
    def filters(self) -> Iterator[str]:
        """The topic filters that bring them, and nothing else."""
        group, node, device = (
            "+" if part == ANY else part for part in (self.group, self.edge_node, self.device)
        )
        for kind in NODE_TYPES:
            yield f"{PREFIX}{group}/{kind}/{node}"
        for kind in DEVICE_TYPES:
            yield f"{PREFIX}{group}/{kind}/{node}/{device}"

    @property
    def text(self) -> str:
        """As messages call them."""
        return f"{self.group}/{self.edge_node}"


class MetricRule(Parameters):
    """What the metrics become whose name matches.

    Attributes:
        match: `<edge node>/<device>/<metric>` with `*` and `?`.
        kind: `signal`, `state` (whole numbers and Booleans), or `ignore`.
    """

    match: Annotated[str, AfterValidator(_metric_match)]
    kind: Reading


class SparkplugSettings(Parameters):
    """What the readings of a line's edge nodes depend on.

    Attributes:
        nodes: its edge nodes.
        metrics: exceptions from what metrics become by their type: Booleans are states, other
            numbers signals. Where several match, the last one counts.
        node_device: what the device is called that an edge node's own metrics stand under.
    """

    nodes: Annotated[tuple[SparkplugNodes, ...], Field(min_length=1)]
    metrics: tuple[MetricRule, ...] = ()
    node_device: LevelName = "node"

    def takes(self, topic: Topic) -> bool:
        """True where the message is one of the line's."""
        return any(nodes.takes(topic) for nodes in self.nodes)

    def machine(self, topic: Topic) -> str:
        """The edge node; with its group where that is not fixed."""
        any_group = any(nodes.group == ANY for nodes in self.nodes if nodes.takes(topic))
        return topic.node if any_group else topic.edge_node

    def reading(self, name: str, datatype: int) -> Reading:
        """What becomes of a metric `<edge node>/<device>/<metric>`."""
        found: Reading = "state" if datatype == DataType.BOOLEAN else "signal"
        for rule in self.metrics:
            if fnmatch.fnmatchcase(name, rule.match):
                found = rule.kind
        return found

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters that bring the nodes."""
        return tuple(dict.fromkeys(each for nodes in self.nodes for each in nodes.filters))


class LineSparkplug(SparkplugSettings):
    """The edge nodes of a line as the plant file has them.

    Attributes:
        rebirth: ask a node for its births where they are missing, which the specification allows
            whoever reads; false where nothing may be written.
    """

    rebirth: bool = True

    @property
    def settings(self) -> SparkplugSettings:
        """The part that readings depend on."""
        return SparkplugSettings(
            nodes=self.nodes, metrics=self.metrics, node_device=self.node_device
        )
