"""The rules over history: which alerts there would have been, and how they fit known stops."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.evaluation import Alert, LineState, advance, ticks_between
from iiot_platform.alerts.lifecycle import STEP_MS, AlertKey, Transition
from iiot_platform.alerts.reading import frames, heard_before
from iiot_platform.alerts.samples import samples
from iiot_platform.client import Client
from iiot_platform.config.maintenance import MaintenanceCalendar
from iiot_platform.config.plant import Plant
from iiot_platform.config.shifts import ShiftCalendar, ShiftDay
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S

FLAP_MS: Final = 600 * MS_PER_S
"""An alert that fires again so soon after its end has flapped."""
_MS_PER_MINUTE: Final = 60 * MS_PER_S


class Episode(NamedTuple):
    """One time that an alert fired; times in Unix ms.

    Attributes:
        end_ms: when it ended; None: it still fires at the end of the range.
        told: False where a maintenance window held back all of it.
    """

    key: AlertKey
    since_ms: int
    fired_ms: int
    end_ms: int | None
    peak: float
    told: bool


class Stop(NamedTuple):
    """Something that is known to have happened, over [start, end) in Unix ms.

    Attributes:
        series: `<machine>/<name>[/<operation>]`; `<machine>/*` for a whole machine.
        what: its type.
    """

    line: str
    series: str
    what: str
    start_ms: int
    end_ms: int


class ShiftAlerts(NamedTuple):
    """A line's alerts in one shift: how many fired, of which told, and minutes with any."""

    shift: ShiftDay
    fired: int
    told: int
    minutes: int


class Fit(NamedTuple):
    """How alerts of series and devices fit known stops.

    Attributes:
        stops: stops of the line in the range.
        found: those during which an alert of theirs fired.
        alerts: alerts of series and devices.
        right: those that fired during a stop of theirs.
        by_type: per type of stop how many were found, and of how many.
    """

    stops: int
    found: int
    alerts: int
    right: int
    by_type: dict[str, tuple[int, int]]

    @property
    def precision(self) -> float | None:
        """Share of the alerts that were right; None without alerts."""
        return self.right / self.alerts if self.alerts else None

    @property
    def recall(self) -> float | None:
        """Share of the stops that were found; None without stops."""
        return self.found / self.stops if self.stops else None


@dataclass(frozen=True)
class LineBacktest:
    """What the rules would have done for one line."""

    line: str
    start_ms: int
    end_ms: int
    episodes: tuple[Episode, ...]

    def by_rule(self) -> dict[str, int]:
        """How often each rule that can be replayed fired."""
        counts = Counter(episode.key.rule for episode in self.episodes)
        return {name: counts[name] for name, rule in RULES.items() if rule.replayable}

    def flaps(self) -> int:
        """How often an alert fired again soon after its end."""
        ended: dict[AlertKey, int] = {}
        count = 0
        for episode in sorted(self.episodes, key=lambda one: one.fired_ms):
            before = ended.get(episode.key)
            count += before is not None and episode.fired_ms - before < FLAP_MS
            if episode.end_ms is not None:
                ended[episode.key] = episode.end_ms
        return count

    def shifts(self, calendar: ShiftCalendar) -> list[ShiftAlerts]:
        """Every shift of the range, quiet ones too."""
        fired: Counter[ShiftDay] = Counter()
        told: Counter[ShiftDay] = Counter()
        minutes: Counter[ShiftDay] = Counter()
        for episode in self.episodes:
            shift = calendar.shift_at(episode.fired_ms)
            fired[shift] += 1
            told[shift] += episode.told
        for minute in sorted({m for episode in self.episodes for m in self._minutes(episode)}):
            minutes[calendar.shift_at(minute * _MS_PER_MINUTE)] += 1
        span = range(self.start_ms, self.end_ms, 30 * _MS_PER_MINUTE)
        days = sorted({calendar.shift_at(ts) for ts in span} | set(fired) | set(minutes))
        return [ShiftAlerts(day, fired[day], told[day], minutes[day]) for day in days]

    def fit(self, stops: Sequence[Stop], *, lead_ms: int, tolerance_ms: int) -> Fit:
        """How the alerts fit stops, each widened by a lead before and a tolerance behind it."""
        own = [
            stop
            for stop in stops
            if stop.line == self.line
            and stop.start_ms < self.end_ms
            and self.start_ms < stop.end_ms
        ]
        alerts = [e for e in self.episodes if RULES[e.key.rule].scope in {"series", "device"}]
        right, found = set(), set()
        for i, stop in enumerate(own):
            for j, episode in enumerate(alerts):
                end = self.end_ms if episode.end_ms is None else episode.end_ms
                meets = episode.fired_ms < stop.end_ms + tolerance_ms
                if meets and stop.start_ms - lead_ms < end and _about(stop, episode.key):
                    found.add(i)
                    right.add(j)
        total = Counter(stop.what for stop in own)
        seen = Counter(own[i].what for i in found)
        by_type = {what: (seen[what], total[what]) for what in sorted(total)}
        return Fit(len(own), len(found), len(alerts), len(right), by_type)

    def _minutes(self, episode: Episode) -> range:
        end = self.end_ms if episode.end_ms is None else episode.end_ms
        first = episode.fired_ms // _MS_PER_MINUTE
        return range(first, max((end - 1) // _MS_PER_MINUTE, first) + 1)


def _about(stop: Stop, key: AlertKey) -> bool:
    if stop.series.endswith("/*"):
        return key.series.startswith(stop.series[:-1])
    device_alone = RULES[key.rule].scope == "device" and stop.series.startswith(f"{key.series}/")
    return key.series == stop.series or device_alone


def backtest(
    client: Client,
    plant: Plant,
    line: str,
    start_ms: int,
    end_ms: int,
    *,
    on_hour: Callable[[], object] = lambda: None,
) -> LineBacktest:
    """Replays the rules of a line; nothing is written, and no alert is taken to fire at the start.

    Args:
        client: the tables as they stand.
        plant: rules and maintenance windows to try.
        line: the line.
        start_ms: first moment.
        end_ms: last moment.
        on_hour: called behind each hour.

    Raises:
        StorageError: the tables can not be read.
    """
    calendar = MaintenanceCalendar(plant.alerts.maintenance, plant.timezone)
    start_ms = start_ms // STEP_MS * STEP_MS
    state = LineState(start_ms, heard=heard_before(client, line, start_ms, plant.alerts))
    transitions: list[Transition] = []
    told: list[Alert] = []
    while moments := ticks_between(state.at_ms, min(end_ms, state.at_ms + MS_PER_HOUR)):
        data = frames(client, line, moments, plant.alerts)
        values, heard = samples(line, data, moments, plant.alerts, state.heard)
        held = calendar.spans(line, state.at_ms, moments[-1] + 1)
        found = advance(state, values, moments, held, plant.alerts, heard)
        transitions += found.transitions
        told += [alert for _, alert in found.told]
        state = found.state
        on_hour()
    return LineBacktest(line, start_ms, state.at_ms, tuple(_episodes(transitions, told)))


def _episodes(transitions: Iterable[Transition], told: Iterable[Alert]) -> list[Episode]:
    known = {(alert.key, alert.fired_ms) for alert in told}
    found: dict[tuple[AlertKey, int], Episode] = {}
    for one in transitions:
        fired_ms = one.ts_ms if one.state.fired_ms is None else one.state.fired_ms
        end_ms = one.ts_ms if one.kind == "resolved" else None
        found[one.key, fired_ms] = Episode(
            one.key,
            one.state.since_ms,
            fired_ms,
            end_ms,
            one.state.peak,
            (one.key, fired_ms) in known,
        )
    return sorted(found.values(), key=lambda episode: (episode.fired_ms, episode.key))
