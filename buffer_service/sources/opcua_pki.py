"""Certificates: ours, made once and kept, and those of servers, pinned or trusted at first use."""

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from asyncua.crypto.cert_gen import generate_self_signed_app_certificate
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from buffer_service.sources.opcua_validity import (
    day,
    expires_soon,
    expiry,
    is_expired,
    renews,
)
from iiot_platform.core.errors import SourceError
from iiot_platform.core.names import path_segment

logger = logging.getLogger(__name__)

_KEY_BITS: Final = 2048
_DAYS: Final = 20 * 365
_MAKING: Final = threading.Lock()
_PEM_MARK: Final = b"-----BEGIN"


class Identity(NamedTuple):
    """Our application's certificate (DER), its key (PEM), and the URI that both carry."""

    certificate: Path
    key: Path
    uri: str


class Pki:
    """The folder with our identity and the servers' certificates.

    Args:
        folder: where they lie.
        now: the time that certificates must be valid at; default the clock's.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] | None = None) -> None:
        self._folder = folder
        self._now = now or (lambda: clock())  # noqa: PLW0108 - tests turn it
        self._warned: set[bytes] = set()

    @property
    def certificate(self) -> Path:
        """Where our own certificate lies, or will."""
        return self._folder / "own" / "client.der"

    def identity(self) -> Identity:
        """Our certificate and key, made where there are none.

        The next certificate is made 30 days before the first expires, with the same key, so that
        servers can trust it in time; it takes over when the first has expired.

        Raises:
            SourceError: the folder can not be written, or what is there is no certificate.
        """
        certificate, key = self.certificate, self.certificate.with_suffix(".key")
        try:
            # all sources of a process have one identity, and the first two may start together
            with _MAKING:
                made = not certificate.exists() or not key.exists()
                if made:
                    _make(certificate, key)
            if made:
                logger.info(
                    "made the certificate of this buffer, %s (SHA-256 %s); servers that use "
                    "security must trust it",
                    certificate,
                    fingerprint(certificate.read_bytes()),
                )
            with _MAKING:
                self._renew(certificate, key)
            return Identity(certificate, key, _uri_of(certificate.read_bytes()))
        except (OSError, ValueError, x509.ExtensionNotFound) as error:
            raise SourceError(
                f"{certificate.parent}: no certificate can be kept there: {error}; make the folder "
                "writable, or remove what is in it to have it made anew"
            ) from error

    def user_identity(self, certificate: Path, key: Path) -> None:
        """Make a user's certificate and key where there are neither.

        Raises:
            SourceError: one of the two is missing, or they can not be written.
        """
        if certificate.exists() and key.exists():
            return
        if certificate.exists() or key.exists():
            missing = key if certificate.exists() else certificate
            raise SourceError(f"{missing} is missing; give both files, or none to have them made")
        try:
            with _MAKING:
                _make(certificate, key, "user")
        except OSError as error:
            raise SourceError(f"{certificate}: can not be written: {error}") from error
        logger.info(
            "made the user certificate %s (SHA-256 %s); the server must know it as a user",
            certificate,
            fingerprint(certificate.read_bytes()),
        )

    def _renew(self, certificate: Path, key: Path) -> None:
        """See to our certificate's end in time."""
        der, now = certificate.read_bytes(), self._now()
        if not expires_soon(der, now):
            return
        coming = certificate.with_name("client.next.der")
        if not coming.exists():
            _write(coming, _signed(_load_key(key), "buffer"), 0o644)
        if is_expired(der, now):
            coming.replace(certificate)
            logger.warning(
                "our certificate has expired at %s, %s has taken its place; servers that do not "
                "trust it yet must do so",
                day(expiry(der)),
                certificate,
            )
        elif der not in self._warned:
            self._warned.add(der)
            logger.warning(
                "our certificate expires at %s; let all servers trust %s, which will take its "
                "place (SHA-256 %s)",
                day(expiry(der)),
                coming,
                fingerprint(coming.read_bytes()),
            )

    def expired(self, shown: bytes) -> str:
        """What to say of a server's certificate that has expired; empty where it has not."""
        if not is_expired(shown, self._now()):
            return ""
        return (
            f"the server's certificate has expired at {day(expiry(shown))} (SHA-256 "
            f"{fingerprint(shown)}); renew it on the server"
        )

    def check(self, source: str, url: str, shown: bytes, pinned: Path | None) -> None:
        """Accept the certificate (DER) that a server shows, or say why not.

        Raises:
            SourceError: it is not the one that is pinned, or that was trusted before, or it has
                expired.
        """
        if expired := self.expired(shown):
            raise SourceError(expired)
        if expires_soon(shown, self._now()) and shown not in self._warned:
            self._warned.add(shown)
            logger.warning(
                "source '%s', %s: its certificate expires at %s; renew it on the server, with the "
                "same key if it is to be trusted without asking",
                source,
                url,
                day(expiry(shown)),
            )
        kept = pinned or self._folder / "trusted" / f"{path_segment(source)}.der"
        try:
            if pinned is None and not kept.exists():
                _write(kept, shown, 0o644)
                logger.warning(
                    "source '%s', %s: trusting its certificate on first use, SHA-256 %s; it is "
                    "kept in %s, compare it with the server's",
                    source,
                    url,
                    fingerprint(shown),
                    kept,
                )
                return
            trusted = _der(kept.read_bytes())
            if pinned is None and trusted != shown and renews(shown, trusted):
                _write(kept, shown, 0o644)
                logger.warning(
                    "source '%s', %s: its certificate was renewed with the same key, SHA-256 %s",
                    source,
                    url,
                    fingerprint(shown),
                )
                return
        except (OSError, ValueError) as error:
            raise SourceError(f"{kept}: the server's certificate can not be kept: {error}") from (
                error
            )
        if trusted != shown:
            advice = (
                "set server_certificate_file to its certificate"
                if pinned
                else "remove that file if the server has a new one"
            )
            raise SourceError(
                f"the server's certificate is not trusted: it shows SHA-256 {fingerprint(shown)}, "
                f"{kept} holds {fingerprint(trusted)}; {advice}"
            )


def clock() -> datetime:
    """The time of now."""
    return datetime.now(UTC)


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, as servers show it."""
    return hashlib.sha256(der).hexdigest()


def _signed(private: rsa.RSAPrivateKey, role: str) -> bytes:
    """A certificate (DER) of a key."""
    host = socket.gethostname()
    built = generate_self_signed_app_certificate(
        private,
        f"iiot-{role}@{host}",
        {"organizationName": "iiot-platform"},
        [
            x509.UniformResourceIdentifier(f"urn:{host}:iiot-platform:{role}"),
            x509.DNSName(host),
        ],
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        _DAYS,
    )
    return built.public_bytes(serialization.Encoding.DER)


def _load_key(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{path} is no RSA key")  # noqa: TRY004 - of the file, not of an argument
    return key


def _make(certificate: Path, key: Path, role: str = "buffer") -> None:
    private = rsa.generate_private_key(public_exponent=65_537, key_size=_KEY_BITS)
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(key, secret, 0o600)
    _write(certificate, _signed(private, role), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Create a file with its mode from the start, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _der(content: bytes) -> bytes:
    if _PEM_MARK not in content:
        return content
    return x509.load_pem_x509_certificate(content).public_bytes(serialization.Encoding.DER)


def _uri_of(der: bytes) -> str:
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise ValueError("the certificate carries no application URI")
    return uris[0]
