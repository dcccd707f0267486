"""A real mosquitto on a free port, with users, TLS and persistence where a test wants them."""

import base64
import getpass
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.servers.ports import free_port

START_TIMEOUT_S = 60.0
SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "mosquitto" / "mosquitto.conf"
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    """The path of a program of mosquitto's; fails with what to install where it is missing."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise RuntimeError(
            f"{name} is not on this machine: apt install mosquitto mosquitto-clients"
        )
    return found


@dataclass(frozen=True)
class ServerTls:
    """Certificates of the listener; with `require_client` clients need one of `ca_file`."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    require_client: bool = False


@dataclass
class MosquittoServer:
    """A broker that keeps everything for clients that are away; `start` it, or use `with`.

    Attributes:
        folder: where its configuration, log and database go.
        users: user to password; none lets everyone in.
        tls: makes the listener speak TLS.
        persistent: keep sessions and messages over a restart, saved at every change.
        lines: further lines of its configuration.
    """

    folder: Path
    users: Mapping[str, str] = field(default_factory=dict)
    tls: ServerTls | None = None
    persistent: bool = False
    lines: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the broker has logged."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        """Start and wait until each port answers."""
        executable = program("mosquitto")
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "mosquitto.conf"
        text = "\n".join(self._configuration()) + "\n"
        configuration.write_text(text)
        ports = [int(port) for port in re.findall(r"^listener (\d+)", text, re.MULTILINE)]
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [executable, "-c", configuration], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if all(self._listens(port) for port in ports):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"mosquitto did not start:\n{self.log}")
            time.sleep(0.02)

    def _listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, port)) == 0

    def stop(self) -> None:
        """Orderly end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End as in a power cut."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _configuration(self) -> Iterator[str]:
        yield f"listener {self.port} {self.host}"
        if os.geteuid() == 0:
            yield "user root"
        yield "log_type error"
        yield "log_type warning"
        yield "log_type notice"
        yield "log_dest stdout"
        yield "max_queued_messages 0"
        yield "max_queued_bytes 1000000000"
        yield f"allow_anonymous {'false' if self.users else 'true'}"
        if self.users:
            passwords = self.folder / "passwords"
            rows = [f"{user}:{_hashed(word)}\n" for user, word in self.users.items()]
            passwords.write_text("".join(rows))
            passwords.chmod(0o600)
            yield f"password_file {passwords}"
        if self.tls is not None:
            yield f"cafile {self.tls.ca_file}"
            yield f"certfile {self.tls.cert_file}"
            yield f"keyfile {self.tls.key_file}"
            yield f"require_certificate {'true' if self.tls.require_client else 'false'}"
        if self.persistent:
            yield "persistence true"
            yield f"persistence_location {self.folder}/"
            yield "autosave_on_changes true"
            yield "autosave_interval 1"
        yield from self.lines


class ShippedMosquitto(MosquittoServer):
    """A broker with the configuration that is shipped; only port, folder and users are ours.

    It has no encrypted listener and no access rules here.
    """

    def _configuration(self) -> Iterator[str]:
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{u}:{_hashed(word)}\n" for u, word in self.users.items()))
        passwords.chmod(0o600)
        text = SHIPPED.read_text(encoding="utf-8")
        for shipped, here in (
            ("listener 1883", f"listener {self.port} {self.host}\nuser {getpass.getuser()}"),
            ("/mosquitto/data/", f"{self.folder}/"),
            ("password_file /run/secrets/mqtt_passwords", f"password_file {passwords}"),
            ("acl_file /mosquitto/config/acl", ""),
        ):
            if shipped not in text:
                raise RuntimeError(f"{SHIPPED} does not say '{shipped}'")
            text = text.replace(shipped, here)
        # the encrypted listener and the rights are looked at by the test of the whole stack
        encrypted = text[text.index("listener 8883") : text.index("# users of both")]
        text = text.replace(encrypted, "")
        yield from text.splitlines()
        yield from self.lines


@contextmanager
def running(folder: Path) -> Iterator[MosquittoServer]:
    """A plain broker for the length of a block."""
    with MosquittoServer(folder) as server:
        yield server


def _hashed(password: str) -> str:
    """A password as `mosquitto_passwd` writes it: PBKDF2, SHA-512, 101 rounds."""
    rounds, salt = 101, os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
