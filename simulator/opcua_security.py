"""Who a simulated OPC UA server is, and whom it lets in."""

import hmac
import os
import socket
from pathlib import Path
from typing import Any, Final, cast

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.cert_gen import generate_self_signed_app_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

URI: Final = "urn:iiot-platform:simulator"
_DAYS: Final = 3_650


class OneUser(UserManager):
    """Lets in one user by name and password, and users by certificate; without either everybody.

    Args:
        username: the user's name.
        password: the user's.
        certificates: folder of the certificates (DER) of users.
    """

    def __init__(
        self, username: str | None, password: str, certificates: Path | None = None
    ) -> None:
        self._username = username
        self._password = password
        self._certificates = certificates

    @property
    def tokens(self) -> list[type[Any]]:
        """How users may say who they are."""
        known = [ua.UserNameIdentityToken] if self._username is not None else []
        named = [ua.X509IdentityToken] if self._certificates is not None else []
        return [*known, *named] or [ua.AnonymousIdentityToken]

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002 - asyncua's signature
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User | None:
        """The user who may come in, or None."""
        if username is None and self._certificates is not None:
            known = [file.read_bytes() for file in self._certificates.glob("*.der")]
            return User(role=UserRole.Admin, name="certificate") if certificate in known else None
        if self._username is not None and not (
            username == self._username
            and hmac.compare_digest((password or "").encode(), self._password.encode())
        ):
            return None
        return User(role=UserRole.Admin, name=username or "anonymous")


async def secure(server: Server, pki: Path, *, only: bool, trusted: Path | None) -> None:
    """Give a server its certificate and its policies.

    Args:
        server: not yet started.
        pki: where its certificate and key are kept; made where there are none.
        only: no endpoint without security.
        trusted: folder of the certificates (DER) of clients that it accepts; None: all.
    """
    certificate, key = pki / "server.der", pki / "server.key"
    if not certificate.exists() or not key.exists():
        make_certificate(certificate, key)
    await server.load_certificate(certificate, "DER")
    await server.load_private_key(key, format="PEM")
    policies = [
        ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
        ua.SecurityPolicyType.Basic256Sha256_Sign,
    ]
    if not only:
        policies.insert(0, ua.SecurityPolicyType.NoSecurity)
    server.set_security_policy(policies)
    if trusted is not None:

        async def check(shown: x509.Certificate, _application: Any) -> None:
            der = shown.public_bytes(serialization.Encoding.DER)
            # a handful of small files
            files = list(trusted.glob("*.der"))  # noqa: ASYNC240
            if not any(der == file.read_bytes() for file in files):
                raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

        server.set_certificate_validator(check)


def make_certificate(certificate: Path, key: Path, *, days: float = _DAYS) -> None:
    """A certificate (DER) that is valid for some days, of a key (PEM) that is made if need be."""
    key.parent.mkdir(parents=True, exist_ok=True)
    if key.exists():
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        private = cast("rsa.RSAPrivateKey", loaded)
    else:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    built = generate_self_signed_app_certificate(
        private,
        "iiot-simulator",
        {"organizationName": "iiot-platform"},
        [x509.UniformResourceIdentifier(URI), x509.DNSName(socket.gethostname())],
        [ExtendedKeyUsageOID.SERVER_AUTH],
        days,  # type: ignore[arg-type] # it takes any number
    )
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.DER))
