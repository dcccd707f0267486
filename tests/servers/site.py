"""An installation of two lines, with a log of its own and no server."""

from dataclasses import dataclass, field
from datetime import datetime

from dagster import (
    DagsterInstance,
    Definitions,
    SensorResult,
    build_sensor_context,
)

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, hour_of
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration.build import build_definitions
from iiot_platform.orchestration.installation import Deliveries
from iiot_platform.orchestration.naming import LineNames
from iiot_platform.orchestration.partitions import EARLIEST
from tests.servers.capture_log import write_segments
from tests.servers.lines import signal_records

LINES = ("press_1", "Línea 2 (Nord)")


@dataclass
class Site:
    """Two lines below one home; the clock goes on when it is told to."""

    settings: Settings
    plant: Plant
    instance: DagsterInstance
    now_ms: int
    deliveries: Deliveries | None = None
    cursor: str | None = None
    names: list[LineNames] = field(default_factory=list)
    start: datetime = EARLIEST
    _definitions: tuple[datetime, Definitions] | None = None

    @property
    def definitions(self) -> Definitions:
        if self._definitions is None or self._definitions[0] != self.start:
            definitions = build_definitions(
                self.settings,
                self.plant,
                deliveries=self.deliveries,
                clock=lambda: self.now_ms,
                start=self.start,
            )
            self._definitions = self.start, definitions
        return self._definitions[1]

    def engine(self) -> Engine:
        return Engine(self.settings.home, self.plant, clock=lambda: self.now_ms)

    def write(self, line: str, *, back_hours: int = 0, rows: int = 100) -> tuple[int, int]:
        """Readings of the last seconds, some hours ago."""
        end = self.now_ms - back_hours * MS_PER_HOUR
        times = range(end - rows * 100, end, 100)
        return write_segments(self.settings.home, line, signal_records(line, times), rows=50)

    def tick(self) -> SensorResult:
        repository = self.definitions.get_repository_def()
        context = build_sensor_context(
            instance=self.instance, repository_def=repository, cursor=self.cursor
        )
        result = repository.get_sensor_def("new_data")(context)
        assert isinstance(result, SensorResult)
        self.cursor = result.cursor
        return result

    @property
    def hour(self) -> int:
        return hour_of(self.now_ms)
