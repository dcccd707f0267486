from pathlib import Path

import pytest
from pydantic import SecretStr

from iiot_platform.config.endpoint import EndpointError, EndpointSettings
from iiot_platform.config.settings import SettingError, Settings

TLS = {"cert_file": Path("c.pem"), "key_file": Path("k.pem")}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_needs_no_consent(host: str) -> None:
    assert EndpointSettings(host=host).loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "buffer.example", ""])  # noqa: S104 - refused
def test_another_address_needs_tls_and_token_or_consent(host: str) -> None:
    with pytest.raises(EndpointError, match="without TLS and a token"):
        EndpointSettings(host=host)
    with pytest.raises(EndpointError, match="without a token"):
        EndpointSettings(host=host, **TLS)
    with pytest.raises(EndpointError, match="without TLS"):
        EndpointSettings(host=host, token=SecretStr("x"))
    assert not EndpointSettings(host=host, token=SecretStr("x"), **TLS).loopback
    assert EndpointSettings(host=host, insecure=True)


def test_half_of_tls_is_refused() -> None:
    with pytest.raises(EndpointError, match="the key is missing"):
        EndpointSettings(cert_file=Path("c.pem"))


def test_addresses() -> None:
    base = EndpointSettings(insecure=True)
    assert base.at("9000") == EndpointSettings(port=9000, insecure=True)
    assert base.at("[::1]:9000").host == "::1"
    assert base.at("0.0.0.0:0").port == 0
    for text in ("", "host", "host:", "host:http", "host:70000", "host:-1"):
        with pytest.raises(EndpointError, match=r"should be like 127\.0\.0\.1:9470"):
            base.at(text)


def test_the_environment_says_where(tmp_path: Path) -> None:
    found = Settings.from_environ({})
    assert found.buffer_metrics == EndpointSettings(port=9470)
    assert found.metrics == EndpointSettings(port=9471)
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    found = Settings.from_environ(
        {
            "IIOT_BUFFER_METRICS": "off",
            "IIOT_METRICS": "0.0.0.0:80",
            "IIOT_METRICS_TOKEN_FILE": str(token),
            "IIOT_METRICS_CERT_FILE": "c.pem",
            "IIOT_METRICS_KEY_FILE": "k.pem",
        }
    )
    assert found.buffer_metrics is None
    assert found.metrics == EndpointSettings(
        host="0.0.0.0",  # noqa: S104 - with TLS and token
        port=80,
        token=SecretStr("t0ken"),
        **TLS,
    )
    assert "t0ken" not in repr(found)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"IIOT_METRICS": "nowhere"}, "IIOT_METRICS: got 'nowhere'"),
        ({"IIOT_BUFFER_METRICS": "0.0.0.0:1"}, "IIOT_BUFFER_METRICS: .* open to other machines"),
        ({"IIOT_METRICS_CERT_FILE": "c"}, "IIOT_METRICS_KEY_FILE: .*the key is missing"),
        ({"IIOT_METRICS_INSECURE": "perhaps"}, "should be true or false"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.from_environ(environ)
