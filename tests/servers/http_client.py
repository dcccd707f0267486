"""Asks an HTTP endpoint under test."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping


def get(
    url: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, str]:
    """Status and body of an answer, whatever the status."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=60, context=tls) as answer:  # noqa: S310 - ours
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[str, float]:
    """Every sample of an exposition, by its name with labels."""
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (row.rpartition(" ") for row in rows)}
