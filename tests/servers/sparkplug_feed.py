"""What two edge nodes of a line say in a few hours, with everything that goes wrong on the way."""

import random

from iiot_platform.core.capture_log import Record
from tests.servers.sparkplug import metric, payload, spoken
from tests.servers.streams import BASE_MS, HOUR_MS, signal

NAMES = ("Temp", "Load", "Speed", "Run", "Mode", "Recipe")
TYPES = {"Temp": 10, "Load": 9, "Speed": 3, "Run": 11, "Mode": 6, "Recipe": 12}


class Node:
    """An edge node with devices whose aliases change with every birth."""

    def __init__(self, noise: random.Random, place: str, devices: tuple[str, ...]) -> None:
        self._noise = noise
        self._place = place
        self._bd_seq = 0
        self._seq = 0
        self._aliases: dict[str, dict[str, int]] = {}
        self._devices = devices

    def _value(self, name: str) -> object:
        noise = self._noise
        return {
            "Temp": noise.gauss(20, 0.5),
            "Load": noise.gauss(0.5, 0.01),
            "Speed": noise.randrange(-20, 20),
            "Run": noise.random() < 0.5,
            "Mode": noise.randrange(3),
            "Recipe": "a",
        }[name]

    def _count(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq

    def birth(self, device: str, ts: int, received: int) -> Record:
        """A birth that gives every metric another alias."""
        numbers = self._noise.sample(range(100), len(NAMES))
        self._aliases[device] = dict(zip(NAMES, numbers, strict=True))
        metrics = [
            metric(self._value(name), datatype=TYPES[name], name=name, alias=alias)
            for name, alias in self._aliases[device].items()
        ]
        if device:
            body = payload(*metrics, ts=ts, seq=self._count())
            return spoken("DBIRTH", f"{self._place}/{device}", body, received)
        self._bd_seq += 1
        self._seq = 0
        own = metric(self._bd_seq, datatype=8, name="bdSeq")
        return spoken("NBIRTH", self._place, payload(own, *metrics, ts=ts, seq=0), received)

    def data(self, device: str, ts: int, received: int) -> Record:
        """Some values by alias, now and then late ones and unknown aliases."""
        noise, aliases = self._noise, self._aliases.get(device, {"Temp": 3})
        metrics = [
            metric(
                self._value(name),
                datatype=TYPES[name],
                alias=aliases[name],
                ts=ts - noise.choice((0, 0, 0, 1_000, HOUR_MS)),
                send_type=False,
            )
            for name in noise.sample(sorted(aliases), noise.randrange(1, len(aliases) + 1))
        ]
        if noise.random() < 0.05:
            metrics.append(metric(1.0, datatype=10, alias=555))
        place = f"{self._place}/{device}" if device else self._place
        kind = "DDATA" if device else "NDATA"
        return spoken(kind, place, payload(*metrics, ts=ts, seq=self._count()), received)

    def death(self, device: str, ts: int, received: int) -> Record:
        """The end of a device, or the node's will; at times that of an earlier session."""
        if device:
            body = payload(ts=ts, seq=self._count())
            return spoken("DDEATH", f"{self._place}/{device}", body, received)
        stale = self._noise.random() < 0.3
        own = metric(max(self._bd_seq - stale, 0), datatype=8, name="bdSeq")
        return spoken("NDEATH", self._place, payload(own), received)

    def overtaking(self, ts: int, received: int) -> Record:
        """The birth of a device that comes before the node's, though it was written after it."""
        return self.birth(self._noise.choice(self._devices), ts, received)

    def any(self, ts: int, received: int) -> Record:
        """Any of them."""
        device = self._noise.choice(("", *self._devices))
        chance = self._noise.random()
        if chance < 0.1:
            return self.birth(device, ts, received)
        if chance < 0.17:
            return self.death(device, ts, received)
        if chance < 0.19:
            return self.data(device, ts, received)._replace(payload=b"\xff\x00")
        return self.data(device, ts, received)


def feed(seed: int, messages: int, *, hours: int = 3) -> list[Record]:
    """Messages of two nodes with a device name in common, and of a JSON signal between them."""
    noise = random.Random(seed)
    nodes = [Node(noise, "G/E1", ("D", "D2")), Node(noise, "G/E2", ("D",))]
    step = hours * HOUR_MS // messages
    records = []
    for i in range(messages):
        ts = BASE_MS + i * step + noise.randrange(step // 2)
        received = ts + noise.choice((20, 20, 90, step // 3))
        if noise.random() < 0.15:
            records.append(signal("pressure", ts, noise.gauss(5, 0.1), received=received))
        else:
            node = noise.choice(nodes)
            records.append(node.any(ts, received))
            if "/NBIRTH/" in records[-1].topic and noise.random() < 0.5:
                records.append(node.overtaking(ts, received - noise.choice((0, 40, 2_500))))
        if noise.random() < 0.03:
            records.append(records[-1]._replace(dup=True))
    return sorted(records, key=lambda record: record.received_ts)
