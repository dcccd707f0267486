"""`iiot metrics`: the platform's metrics, once or served to a Prometheus."""

import signal
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, generate_latest

from iiot_platform.config.settings import Settings
from iiot_platform.exporter.collector import PlatformCollector, unhealthy, unready
from iiot_platform.exporter.watch import PlatformWatch
from iiot_platform.metrics.endpoint import MetricsServer


def metrics(
    context: typer.Context,
    *,
    serve: Annotated[bool, typer.Option("--serve", help="Serve them until Ctrl-C.")] = False,
    host: Annotated[str | None, typer.Option(help="Address; else IIOT_METRICS.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; else IIOT_METRICS.")
    ] = None,
    cert_file: Annotated[Path | None, typer.Option(help="Certificate, for TLS.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Key of the certificate.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines ask without TLS and token.")
    ] = False,
) -> None:
    """Print the platform's metrics, or serve them with /healthz and /readyz for monitoring."""
    settings = Settings.from_environ(context.obj)
    given = settings.metrics
    endpoint = replace(
        given,
        host=host or given.host,
        port=given.port if port is None else port,
        cert_file=cert_file or given.cert_file,
        key_file=key_file or given.key_file,
        insecure=insecure or given.insecure,
    )
    with closing(PlatformWatch(settings, context.obj)) as watch:
        collector = PlatformCollector(watch)
        if not serve:
            registry = CollectorRegistry()
            registry.register(collector)
            typer.echo(generate_latest(registry).decode(), nl=False)
            return
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        with MetricsServer(
            endpoint,
            collector,
            healthy=lambda: unhealthy(watch),
            ready=lambda: unready(watch),
        ) as server:
            typer.echo(f"metrics: {server.url}/metrics")
            ended.wait()
