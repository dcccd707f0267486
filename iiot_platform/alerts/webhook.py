"""Alerts as JSON posted to a receiver."""

import hashlib
import hmac
import logging
import ssl
from collections.abc import Callable
from typing import Final

import urllib3

from iiot_platform.alerts.store import Waiting
from iiot_platform.config.alerts import Webhook
from iiot_platform.core.clock import MS_PER_S, now_ms
from iiot_platform.core.errors import SinkError

CONNECT_TIMEOUT_S: Final = 5.0
ID_HEADER: Final = "Idempotency-Key"
TIME_HEADER: Final = "X-IIoT-Timestamp"
SIGNATURE_HEADER: Final = "X-IIoT-Signature"
_TEMPORARY: Final = frozenset({401, 403, 404, 408, 425, 429})
"""Answers in the range of the caller's own mistakes that a change at the receiver can mend."""


class RefusedError(SinkError):
    """The receiver says that it will never take this message."""


class WebhookPoster:
    """Posts messages, one at a time; a redirect is not followed.

    Args:
        settings: where to, and how to prove who posts.
        clock: Unix ms, for the time that is signed.
    """

    def __init__(self, settings: Webhook, *, clock: Callable[[], int] = now_ms) -> None:
        self._settings = settings
        self._clock = clock
        # at DEBUG it writes the path of every request, and ours may hold a secret
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
        self._pool = urllib3.PoolManager(
            num_pools=1,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=settings.timeout_s),
            cert_reqs="CERT_REQUIRED",
            ca_certs=None if settings.ca_file is None else str(settings.ca_file),
        )

    def close(self) -> None:
        """Closes the connection."""
        self._pool.clear()

    def deliver(self, waiting: Waiting) -> None:
        """Posts a message and returns once the receiver has taken it.

        Raises:
            RefusedError: the receiver says that the message itself is wrong.
            SinkError: it can not be reached or does not take it now.
        """
        message = waiting.message
        try:
            answer = self._pool.request(
                "POST",
                self._settings.url.get_secret_value(),
                body=message.body,
                headers=self._headers(message.id, message.body),
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            # its text may hold the address, which may be a secret
            raise SinkError(f"the webhook can not be reached ({_reason(error)})") from None
        if answer.status // 100 == 2:  # noqa: PLR2004 - success
            return
        told = f"the webhook answers {answer.status}"
        if answer.status // 100 == 4 and answer.status not in _TEMPORARY:  # noqa: PLR2004 - likewise
            raise RefusedError(told)
        raise SinkError(told)

    def _headers(self, ident: str, body: bytes) -> dict[str, str]:
        settings = self._settings
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "iiot-alerts/1",
            ID_HEADER: ident,
        }
        if settings.token is not None:
            headers[settings.header] = settings.token.get_secret_value()
        if settings.hmac_key is not None:
            at = str(self._clock() // MS_PER_S)
            headers[TIME_HEADER] = at
            headers[SIGNATURE_HEADER] = signature(settings.hmac_key.get_secret_value(), at, body)
        return headers


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        # behind the comma stands the name of the host
        told = cause.verify_message.partition(",")[0]
        return f"its certificate is refused: {told}; `ca_file` names the authorities that count"
    return type(error).__name__


def signature(key: str, at: str, body: bytes) -> str:
    """What a receiver compares: HMAC-SHA256 over the time, a dot and the body, as hex."""
    digest = hmac.new(key.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"
