"""The one place that makes sinks from settings; a client is imported when its sink is opened."""

from iiot_platform.config.settings import InfluxSettings, SinkSettings
from iiot_platform.sinks.sink import OpenSink


def open_sink(settings: SinkSettings, *, retry_for_s: float = 3.0) -> OpenSink:
    """The sink of one database; nothing is connected before it is needed.

    Args:
        settings: which database.
        retry_for_s: how long a sink that repeats requests by itself does so.
    """
    # the clients take long to import, which every run would pay for
    if isinstance(settings, InfluxSettings):
        from iiot_platform.sinks.influxdb import InfluxSink  # noqa: PLC0415

        return InfluxSink(settings, retry_for_s=retry_for_s)
    from iiot_platform.sinks.postgresql import PostgresSink  # noqa: PLC0415

    return PostgresSink(settings)
