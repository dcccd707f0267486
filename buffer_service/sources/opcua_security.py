"""The security of a connection: its channel, whom we talk to, and as whom."""

import asyncio
from pathlib import Path
from typing import Final

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties

from buffer_service.sources.opcua_pki import Identity, Pki
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.errors import SourceError

_POLICY: Final = SecurityPolicyBasic256Sha256
_MODES: Final = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}


async def secure(client: Client, settings: OpcUaSource, pki: Pki, identity: Identity) -> bytes:
    """Prepare a client to connect as the plant file says.

    Returns:
        The server's certificate (DER); empty without security.

    Raises:
        SourceError: the server does not offer that, or is not the one that we trust.
        OSError: it can not be reached.
    """
    client.name = client.description = "iiot-buffer"
    client.application_uri = identity.uri
    if settings.username is not None:
        client.set_user(settings.username)
        client.set_password(
            settings.password.get_secret_value() if settings.password is not None else ""
        )
    mode = _MODES.get(settings.security)
    if mode is None:
        return b""
    offers = await client.connect_and_get_server_endpoints()
    offer = next(
        (
            offer
            for offer in offers
            if offer.SecurityMode == mode
            and offer.SecurityPolicyUri == _POLICY.URI
            and offer.ServerCertificate
        ),
        None,
    )
    if offer is None:
        raise SourceError(
            f"the server does not offer {settings.security} with Basic256Sha256; it offers "
            f"{', '.join(sorted({_offered(offer) for offer in offers})) or 'nothing'}"
        )
    certificate = _leaf(bytes(offer.ServerCertificate or b""))
    pki.check(settings.name, settings.url, certificate, settings.server_certificate_file)
    await client.set_security(
        _POLICY,
        CertProperties(str(identity.certificate), "DER"),
        CertProperties(str(identity.key), "PEM"),
        server_certificate=CertProperties(certificate, "DER"),
        mode=mode,
    )
    if settings.user_certificate_file is not None and settings.user_key_file is not None:
        await _as_user(client, settings.user_certificate_file, settings.user_key_file, pki)
    return certificate


async def _as_user(client: Client, certificate: Path, key: Path, pki: Pki) -> None:
    """Come as the user of a certificate."""
    await asyncio.to_thread(pki.user_identity, certificate, key)
    try:
        await client.load_client_certificate(str(certificate), _form(certificate))
        await client.load_private_key(key, extension="PEM")
    except (OSError, ValueError) as error:
        raise SourceError(f"{certificate}, {key}: can not be read: {error}") from error


def _form(certificate: Path) -> str:
    return "PEM" if certificate.suffix == ".pem" else "DER"


def _leaf(chain: bytes) -> bytes:
    """The first certificate of a chain, by the length in its DER head."""
    return chain[: int.from_bytes(chain[2:4], "big") + 4]


def _offered(offer: ua.EndpointDescription) -> str:
    policy = (offer.SecurityPolicyUri or "").rpartition("#")[2]
    return f"{policy}/{ua.MessageSecurityMode(offer.SecurityMode).name}"
