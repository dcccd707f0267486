"""Where state lives: one home folder, Dagster's included."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr


@dataclass(frozen=True)
class Home:
    """The folders below `IIOT_HOME`; nothing else of the platform writes elsewhere.

    Attributes:
        root: the folder.
        database: URL of the PostgreSQL database that holds the ledger and Dagster's storage
            instead of files below `root`.
    """

    root: Path
    database: SecretStr | None = None

    @property
    def capture(self) -> Path:
        """Capture log: manifest and segments; the buffer is its only writer."""
        return self.root / "capture"

    @property
    def manifest(self) -> Path:
        """SQLite file with hot rows and the manifest of segments."""
        return self.capture / "manifest.sqlite"

    @property
    def consumed(self) -> Path:
        """What of the log is needed no longer, written by the platform for the buffer."""
        return self.root / "consumed.json"

    @property
    def tables(self) -> Path:
        """Computed tables, immutable files named by content hash."""
        return self.root / "tables"

    @property
    def ledger(self) -> Path:
        """SQLite file with watermarks, partitions, checkpoints and the sink's outbox.

        Not used where there is a `database`.
        """
        return self.root / "ledger.sqlite"

    @property
    def alerts(self) -> Path:
        """SQLite file with the state of alerts and what is to be told; `iiot alerts run` writes."""
        return self.root / "alerts.sqlite"

    @property
    def dagster(self) -> Path:
        """Dagster's instance folder."""
        return self.root / "dagster"

    @property
    def simulator(self) -> Path:
        """Labels and counts of the simulator."""
        return self.root / "simulator"

    @property
    def logs(self) -> Path:
        """Log files of supervised processes."""
        return self.root / "logs"
