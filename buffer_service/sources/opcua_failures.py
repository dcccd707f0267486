"""Why an OPC UA connection failed, in a sentence that says what to do."""

import socket
from typing import Final

from asyncua import ua
from asyncua.ua import uaerrors

from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.errors import PlatformError

_USER: Final = (
    uaerrors.BadUserAccessDenied,
    uaerrors.BadIdentityTokenInvalid,
    uaerrors.BadIdentityTokenRejected,
    uaerrors.BadIdentityChangeNotSupported,
)
_OURS: Final = (
    uaerrors.BadSecurityChecksFailed,
    uaerrors.BadCertificateUntrusted,
    uaerrors.BadCertificateInvalid,
    uaerrors.BadCertificateUseNotAllowed,
    uaerrors.BadCertificateUriInvalid,
    uaerrors.BadCertificateTimeInvalid,
)
_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (uaerrors.BadTooManySessions, "the server has no session left; close other clients"),
    (uaerrors.BadTooManySubscriptions, "the server allows no further subscription; use mode: poll"),
    (uaerrors.BadServiceUnsupported, "the server can not do this; use mode: poll"),
    (uaerrors.BadSecurityPolicyRejected, "choose another security for the source"),
    (uaerrors.BadSecurityModeRejected, "choose another security for the source"),
    (socket.gaierror, "the host name can not be resolved"),
    (ConnectionRefusedError, "nothing listens there; is the server running?"),
    (TimeoutError, "no answer; check host, port and firewall"),
)


def sentence(  # noqa: PLR0911 - one answer per family
    error: BaseException, settings: OpcUaSource, certificate: str
) -> str:
    """What went wrong with a server, and what to do.

    Args:
        error: what was raised.
        settings: the source.
        certificate: where our own certificate lies.
    """
    if isinstance(error, PlatformError):
        return str(error)
    if isinstance(error, _USER) and settings.user_certificate_file is not None:
        return (
            f"refused with the user certificate ({_name(error)}); make "
            f"{settings.user_certificate_file} known to the server as a user with the right to read"
        )
    if isinstance(error, _USER):
        if settings.username is None:
            return "refused without a user: give username and password_file for the source"
        return f"refused as '{settings.username}': wrong user name or password, or no right to read"
    if isinstance(error, _OURS):
        return (
            f"the server does not accept our certificate ({_name(error)}); let it trust "
            f"{certificate}"
        )
    for family, advice in _ADVICE:
        if isinstance(error, family):
            return advice if isinstance(error, OSError) else f"{_name(error)}: {advice}"
    if isinstance(error, ua.UaError):
        return f"the server says {_name(error)}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"unexpected failure: {error!r}"


def _name(error: BaseException) -> str:
    name = type(error).__name__
    return name if name.startswith("Bad") else str(error)
