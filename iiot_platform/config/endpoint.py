"""Where a process tells of itself over HTTP, and who may ask."""

import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr

from iiot_platform.core.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
BUFFER_PORT: Final = 9_470
PLATFORM_PORT: Final = 9_471


class EndpointError(ConfigError):
    """An endpoint for metrics can not be opened like this."""


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """An address that serves metrics and health.

    Attributes:
        host: address that is listened on.
        port: 0: any that is free.
        cert_file: certificate (PEM); with it and `key_file` the endpoint speaks TLS.
        key_file: its key.
        token: who asks must show it (`Authorization: Bearer …`); None: nobody has to.
        insecure: consent to another address than loopback without TLS and token.

    Raises:
        EndpointError: the address is open to others without TLS and token, or half of TLS is
            missing.
    """

    host: str = LOOPBACK
    port: int = 0
    cert_file: Path | None = None
    key_file: Path | None = None
    token: SecretStr | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Checks that nobody is let in by oversight."""
        if (self.cert_file is None) != (self.key_file is None):
            missing = "certificate" if self.cert_file is None else "key"
            raise EndpointError(
                f"metrics on {self.host}:{self.port}: TLS needs certificate and key, the {missing}"
                " is missing; give both or neither"
            )
        if self.loopback or self.insecure:
            return
        lacks = [
            name
            for name, value in (("TLS", self.cert_file), ("a token", self.token))
            if value is None
        ]
        if lacks:
            raise EndpointError(
                f"metrics on {self.host}:{self.port} would be open to other machines without"
                f" {' and '.join(lacks)}; set IIOT_METRICS_CERT_FILE, IIOT_METRICS_KEY_FILE and"
                f" IIOT_METRICS_TOKEN_FILE, listen on {LOOPBACK}, or consent with"
                " IIOT_METRICS_INSECURE=true"
            )

    @property
    def loopback(self) -> bool:
        """True where this machine alone can ask."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def at(self, address: str) -> Self:
        """The same at another address: `<host>:<port>`, `<port>`, or `[<IPv6>]:<port>`.

        Raises:
            EndpointError: the text is no address, or one that must not be opened like this.
        """
        host, _, port = address.strip().rpartition(":")
        if not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the highest port
            raise EndpointError(f"got '{address}'; should be like {LOOPBACK}:{BUFFER_PORT}")
        return replace(self, host=host.strip("[]") or self.host, port=int(port))
