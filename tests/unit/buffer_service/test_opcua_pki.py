import datetime as dt
import logging
from pathlib import Path

import pytest

from buffer_service.sources.opcua_pki import Pki
from buffer_service.sources.opcua_validity import renews
from iiot_platform.core.errors import SourceError
from simulator.opcua_security import make_certificate

NOW = dt.datetime.now(dt.UTC)


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.days = 0.0

    def __call__(self) -> dt.datetime:
        return NOW + dt.timedelta(days=self.days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shown(folder: Path, name: str, days: float, key: str = "server.key") -> bytes:
    certificate = folder / name
    make_certificate(certificate, folder / key, days=days)
    return certificate.read_bytes()


def test_an_expired_server_is_refused_and_a_renewal_of_its_key_is_trusted(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path / "pki", clock)
    first, renewed = (shown(tmp_path, f"{days}.der", days) for days in (100, 500))
    pki.check("plc", "url", first, None)
    clock.days = 80
    pki.check("plc", "url", first, None)
    assert "its certificate expires at" in caplog.text
    clock.days = 101
    with pytest.raises(SourceError, match=r"has expired at .*; renew it on the server"):
        pki.check("plc", "url", first, None)
    pki.check("plc", "url", renewed, None)
    assert "renewed with the same key" in caplog.text
    stranger = shown(tmp_path, "stranger.der", 500, "stranger.key")
    with pytest.raises(SourceError, match="is not trusted"):
        pki.check("plc", "url", stranger, None)
    with pytest.raises(SourceError, match="is not trusted"):
        pki.check("plc", "url", first[:-1], None)


def test_a_pinned_certificate_is_renewed_by_its_file_alone(tmp_path: Path, clock: Clock) -> None:
    pki = Pki(tmp_path / "pki", clock)
    first, renewed = (shown(tmp_path, f"{days}.der", days) for days in (100, 500))
    pinned = tmp_path / "100.der"
    pki.check("plc", "url", first, pinned)
    with pytest.raises(SourceError, match="set server_certificate_file"):
        pki.check("plc", "url", renewed, pinned)
    pinned.write_bytes(renewed)
    pki.check("plc", "url", renewed, pinned)


def test_our_certificate_is_followed_by_one_of_the_same_key(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    pki = Pki(tmp_path, clock)
    first = pki.identity().certificate.read_bytes()
    coming = tmp_path / "own" / "client.next.der"
    assert not coming.exists()
    clock.days = 20 * 365 - 20
    for _ in range(2):
        assert pki.identity().certificate.read_bytes() == first
    following = coming.read_bytes()
    assert renews(following, first)
    assert caplog.text.count("let all servers trust") == 1
    clock.days = 20 * 365 + 1
    assert pki.identity().certificate.read_bytes() == following
    assert not coming.exists()


def test_a_user_needs_both_files_or_none(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    certificate, key = tmp_path / "user.der", tmp_path / "user.key"
    pki.user_identity(certificate, key)
    made = certificate.read_bytes()
    pki.user_identity(certificate, key)
    assert certificate.read_bytes() == made
    key.unlink()
    with pytest.raises(SourceError, match=r"user\.key is missing; give both files"):
        pki.user_identity(certificate, key)
