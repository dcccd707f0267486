"""How long a certificate is valid, and whether another one renews it."""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

SOON: Final = timedelta(days=30)
"""So long before it expires a certificate is spoken of."""


def expiry(der: bytes) -> datetime | None:
    """When a certificate expires; None where the bytes are none."""
    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc
    except ValueError:
        return None


def is_expired(der: bytes, now: datetime) -> bool:
    """True where a certificate is not valid any more."""
    end = expiry(der)
    return end is not None and end <= now


def expires_soon(der: bytes, now: datetime) -> bool:
    """True in the last days of a certificate, and afterwards."""
    end = expiry(der)
    return end is not None and end <= now + SOON


def renews(new: bytes, old: bytes) -> bool:
    """True where a certificate is of the same key as another: whoever shows it is the same."""
    try:
        return _key(new) == _key(old)
    except ValueError:
        return False


def day(moment: datetime | None) -> str:
    """A time for people."""
    return "an unknown time" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _key(der: bytes) -> bytes:
    return (
        x509.load_der_x509_certificate(der)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
