"""Why a connection failed, in a sentence that says what to do."""

import socket
import ssl
from typing import Final

from iiot_platform.config.plant import MqttSource

_ADVICE: Final = {
    "Bad user name or password": "check username and password of the source",
    "Not authorized": "check username and password of the source, and the broker's access rules",
    "Client identifier not valid": "choose another client_id",
    "Unsupported protocol version": "the broker must speak MQTT 5",
    "Session taken over": "another client connects with this client_id: give each its own",
    "Quota exceeded": "the broker's limits are reached",
    "Server busy": "trying again",
}
_UNREACHED: Final[dict[type[OSError], str]] = {
    socket.gaierror: "the host name can not be resolved",
    TimeoutError: "no answer; check host, port and firewall",
    ConnectionRefusedError: "nothing listens there; is the broker running?",
}


def refused(reason: str, settings: MqttSource) -> str:
    """The broker answered, with a reason code that means no."""
    advice = _ADVICE.get(reason, "see the broker's log")
    user = "without a username" if settings.username is None else f"as '{settings.username}'"
    return f"refused {user}, client id '{settings.client_id}': {reason}; {advice}"


def not_reached(error: OSError, settings: MqttSource) -> str:
    """No connection came about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not accepted: {error.verify_message}; check "
            "tls.ca_file and that the certificate names this host"
        )
    if settings.tls is not None and isinstance(error, ssl.SSLError | ConnectionResetError):
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return f"the broker refuses our side of TLS: {error.reason}; check tls.cert_file"
        return (
            "no TLS handshake: the port seems to speak plain MQTT; remove tls from the source or "
            "use the broker's TLS port"
        )
    for family, text in _UNREACHED.items():
        if isinstance(error, family):
            return text
    return error.strerror or str(error)


def closed_early(settings: MqttSource, detail: str) -> str:
    """The connection ended before the broker answered CONNECT."""
    if settings.tls is None:
        return (
            f"closed before an answer ({detail}): the port may want TLS; set tls for the source "
            "or use the broker's plain port"
        )
    if settings.tls.cert_file is None:
        return f"closed before an answer ({detail}): the broker may want a client certificate"
    return f"closed before an answer ({detail}); see the broker's log"


def closed_at_once(settings: MqttSource, detail: str) -> str:
    """The connection ended within seconds of being accepted."""
    return (
        f"the connection broke at once ({detail}): the broker stopped, or another client connects "
        f"with client id '{settings.client_id}'; give each its own"
    )
