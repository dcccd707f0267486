"""The rules there are, and what each one's value says."""

from typing import Final, Literal, NamedTuple


class RuleInfo(NamedTuple):
    """One rule as people read it.

    Attributes:
        name: as it stands in the plant file.
        title: what has happened where it fires.
        value: what its value is.
        unit: of the value and its thresholds.
        scope: what it is about: each series or device, the line, a source, the buffer, or a
            database.
        replayable: True where it depends on the tables alone; the others depend on the state of
            processes at the moment, which nothing keeps, and can not be replayed.
        look: what to look at; commands stand between backticks.
    """

    name: str
    title: str
    value: str
    unit: str
    scope: Literal["series", "device", "line", "source", "buffer", "sink"]
    replayable: bool
    look: str


RULES: Final[dict[str, RuleInfo]] = {
    rule.name: rule
    for rule in (
        RuleInfo(
            "anomaly_ratio",
            "many anomalies",
            "share of anomalies in the detector's last flags",
            "",
            "series",
            replayable=True,
            look="the machine, then the row and its window",
        ),
        RuleInfo(
            "level_shift",
            "level has shifted",
            "1 from a shift until its level is acknowledged",
            "",
            "series",
            replayable=True,
            look="the machine; where the new level is right, acknowledge it in the plant file",
        ),
        RuleInfo(
            "silent_device",
            "device is silent",
            "time since a message of the device was received",
            "s",
            "device",
            replayable=True,
            look="the device, its cable and its PLC",
        ),
        RuleInfo(
            "late_data",
            "data is late",
            "mean of receive time minus event time",
            "s",
            "line",
            replayable=True,
            look="the clocks of the PLCs, then the network",
        ),
        RuleInfo(
            "quarantine_rate",
            "messages are set aside",
            "messages set aside per minute",
            "/min",
            "line",
            replayable=True,
            look="what was set aside: `iiot quarantine list`",
        ),
        RuleInfo(
            "capture_gap",
            "messages may be missing",
            "gaps that were recorded",
            "",
            "line",
            replayable=True,
            look="the gaps and their reasons: `iiot tables --table gaps`",
        ),
        RuleInfo(
            "line_lag",
            "computation lags behind",
            "how long the oldest record that is not computed waits",
            "s",
            "line",
            replayable=False,
            look="Dagster's runs of the line, then `iiot status`",
        ),
        RuleInfo(
            "capture_down",
            "capture is down",
            "1 where the buffer does not run, can not store, or has lost a source",
            "",
            "source",
            replayable=False,
            look="`iiot status`, the log of the buffer, the disk, the broker or server",
        ),
        RuleInfo(
            "messages_dropped",
            "messages are lost",
            "messages dropped, until none was for a while",
            "",
            "source",
            replayable=False,
            look="the broker's queue and the disk of the buffer; what must not be lost needs QoS 1",
        ),
        RuleInfo(
            "disk_low",
            "disk is getting full",
            "1 below buffer.disk_warn_free, 2 where nothing more is taken",
            "",
            "buffer",
            replayable=False,
            look="the disk, then `iiot log ls`; buffer.keep_raw_s deletes what was computed",
        ),
        RuleInfo(
            "sink_backlog",
            "database is behind",
            "entries that the database has not been given",
            "",
            "sink",
            replayable=False,
            look="the database, then `iiot status` and `iiot sink status`",
        ),
    )
}
