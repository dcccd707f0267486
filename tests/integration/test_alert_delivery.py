import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from iiot_platform.alerts.courier import IDLE_S
from iiot_platform.alerts.message import Places
from iiot_platform.alerts.mqtt import MqttAnnouncer
from iiot_platform.alerts.service import AlertService
from iiot_platform.alerts.store import MQTT, WEBHOOK, AlertStore, Outgoing, Waiting
from iiot_platform.alerts.webhook import RefusedError, WebhookPoster, signature
from iiot_platform.config.alerts import Webhook
from iiot_platform.config.plant import MqttSource, MqttTls, Plant
from iiot_platform.core.clock import now_ms
from iiot_platform.core.errors import SinkError
from iiot_platform.core.paths import Home
from tests.servers.certificates import Authority
from tests.servers.faulty_line import FIRED_S, LENGTH_S, LINE, faulty_plant, write_faulty_line
from tests.servers.mosquitto import MosquittoServer, ServerTls, program
from tests.servers.ports import free_port
from tests.servers.streams import BASE_MS
from tests.servers.webhook import Receiver

TOPIC = "iiot/alerts/line1/anomaly_ratio/press/oil"
DEADLINE_S = 120.0


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.05)


def retained(port: int, count: int = 1) -> dict[str, Any]:
    """What the broker keeps below the alerts' prefix, by topic; none takes two seconds to see."""
    command = [program("mosquitto_sub"), "-p", str(port), "-t", "iiot/alerts/#", "-v"]
    done = subprocess.run(
        [*command, "--retained-only", *(("-C", str(count), "-W", "60") if count else ("-W", "2"))],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return {topic: json.loads(body) for topic, _, body in lines}


@dataclass
class Site:
    """A plant with a fault; the clock is moved by hand."""

    home: Home
    plant: Plant
    at_s: float = 5.0

    @contextmanager
    def service(self) -> Iterator[AlertService]:
        service = AlertService(
            self.home, self.plant, Places("p"), clock=lambda: round(BASE_MS + self.at_s * 1_000)
        )
        service.start()
        try:
            yield service
        finally:
            service.close()

    def step(self, service: AlertService, at_s: float) -> None:
        self.at_s = at_s + 20
        service.step()

    def waiting(self) -> dict[str, int]:
        with AlertStore(self.home.alerts) as store:
            return store.waiting()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return write_faulty_line(tmp_path / "var", BASE_MS)


def with_broker(port: int, **alerts: Any) -> Plant:
    plant = faulty_plant(**alerts)
    return plant.model_copy(update={"sources": (MqttSource(port=port),)})


def test_a_topic_says_firing_then_resolved_and_is_cleared(home: Home, tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as broker:
        site = Site(home, with_broker(broker.port, mqtt={"keep_resolved_s": 60}))
        with site.service() as service:
            site.step(service, 5)
            site.step(service, FIRED_S)
            until(lambda: not site.waiting())
            kept = retained(broker.port)
            assert {topic: one["state"] for topic, one in kept.items()} == {TOPIC: "firing"}
            site.step(service, LENGTH_S)
            until(lambda: site.waiting() == {"mqtt-clear": 1})
            assert retained(broker.port)[TOPIC]["state"] == "resolved"
            site.at_s += 61
            until(lambda: not site.waiting())
        assert retained(broker.port, 0) == {}


def test_a_broker_that_is_away_is_told_when_it_is_back(home: Home, tmp_path: Path) -> None:
    broker = MosquittoServer(tmp_path / "broker", persistent=True)
    site = Site(home, with_broker(broker.port))
    with site.service() as service:
        site.step(service, 5)
        site.step(service, FIRED_S)
    assert site.waiting() == {MQTT: 1}
    with broker, site.service() as service:
        until(lambda: not site.waiting())
        assert retained(broker.port)[TOPIC]["state"] == "firing"
        broker.kill()
        site.step(service, LENGTH_S)
        assert site.waiting() == {MQTT: 1}
        broker.start()
        until(lambda: MQTT not in site.waiting())
        assert retained(broker.port)[TOPIC]["state"] == "resolved"


def test_users_and_encryption_are_those_of_the_source(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, client = authority.issue("broker"), authority.issue("platform")
    tls = ServerTls(authority.ca_file, server.cert_file, server.key_file, require_client=True)
    waiting = Waiting(1, Outgoing(MQTT, "1", "iiot/alerts/x", b"{}", resolved=False), 0)
    with MosquittoServer(tmp_path / "broker", users={"platform": "secret"}, tls=tls) as broker:
        source = MqttSource(
            port=broker.port,
            username="platform",
            password=SecretStr("secret"),
            tls=MqttTls(
                ca_file=authority.ca_file, cert_file=client.cert_file, key_file=client.key_file
            ),
        )
        announcer = MqttAnnouncer(source, "alerts")
        announcer.deliver(waiting)
        announcer.close()
        wrong = source.model_copy(update={"password": SecretStr("wrong")})
        with pytest.raises(SinkError, match="refuses the connection: Not authorized"):
            MqttAnnouncer(wrong, "alerts").deliver(waiting)
        strange = source.model_copy(update={"tls": MqttTls()})
        with pytest.raises(SinkError, match="can not be reached"):
            MqttAnnouncer(strange, "alerts").deliver(waiting)


def test_a_user_who_may_not_publish_is_told(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("user platform\ntopic read #\n")
    lines = [f"acl_file {acl}"]
    waiting = Waiting(1, Outgoing(MQTT, "1", "iiot/alerts/x", b"{}", resolved=False), 0)
    with MosquittoServer(tmp_path / "b", users={"platform": "s"}, lines=lines) as broker:
        source = MqttSource(port=broker.port, username="platform", password=SecretStr("s"))
        announcer = MqttAnnouncer(source, "alerts")
        with pytest.raises(SinkError, match="refuses to publish below 'iiot/alerts/x'"):
            announcer.deliver(waiting)
        announcer.close()


def test_an_outage_of_the_webhook_loses_and_doubles_nothing(home: Home) -> None:
    receiver = Receiver()
    webhook = {"url": receiver.url, "token": "Bearer t", "hmac_key": "k"}
    site = Site(home, faulty_plant(mqtt={"enabled": False}, webhook=webhook))
    with site.service() as service:
        site.step(service, 5)
        site.step(service, FIRED_S)
    assert site.waiting() == {WEBHOOK: 1}
    with receiver:
        receiver.answers = [500]
        with site.service() as service:
            until(lambda: not site.waiting())
            assert [state for _, state in receiver.told] == ["firing"]
            receiver.stop()
            site.step(service, LENGTH_S)
            assert site.waiting() == {WEBHOOK: 1}
        receiver.start()
        for _ in range(2):
            with site.service() as service:
                site.step(service, LENGTH_S)
                until(lambda: not site.waiting())
    assert [state for _, state in receiver.told] == ["firing", "resolved"]
    assert len({one for one, _ in receiver.told}) == 2
    first, second, _ = receiver.requests
    assert first.body == second.body
    assert first.headers["Authorization"] == "Bearer t"
    assert first.headers["Idempotency-Key"] == first.json["id"] == receiver.told[0][0]
    at = first.headers["X-IIoT-Timestamp"]
    assert first.headers["X-IIoT-Signature"] == signature("k", at, first.body)
    assert (first.json["line"], first.json["plant"]) == (LINE, "p")


def poster(receiver: Receiver, **more: Any) -> WebhookPoster:
    return WebhookPoster(Webhook.model_validate({"url": receiver.url, "timeout_s": 2, **more}))


POST = Waiting(1, Outgoing(WEBHOOK, "1", "", b'{"alerts": []}', resolved=False), 0)


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as other, Receiver(answers=[307], location=other.url) as receiver:
        with pytest.raises(SinkError, match="the webhook answers 307"):
            poster(receiver).deliver(POST)
        assert len(receiver.requests) == 1
        assert other.requests == []


def test_the_certificate_of_the_receiver_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    other = Authority(tmp_path / "other", "another authority")
    proof = {"token": "t"}
    with Receiver(certificate=authority.issue("webhook")) as receiver:
        poster(receiver, ca_file=authority.ca_file, **proof).deliver(POST)
        assert [one.headers["Authorization"] for one in receiver.taken] == ["t"]
        for known in ({"ca_file": other.ca_file}, {}):  # without: those of the system
            with pytest.raises(SinkError, match=r"certificate is refused: .*`ca_file` names"):
                poster(receiver, **proof, **known).deliver(POST)
        elsewhere = receiver.url.replace("127.0.0.1", "localhost") + "/secret"
        with pytest.raises(SinkError, match="certificate is refused: Hostname mismatch") as told:
            poster(receiver, ca_file=authority.ca_file, url=elsewhere).deliver(POST)
        assert "secret" not in str(told.value)
        assert "localhost" not in str(told.value)
        with pytest.raises(SinkError, match="can not be reached"):
            poster(receiver, url=receiver.url.replace("https", "http")).deliver(POST)
        # none of the refused has seen the token
        assert len(receiver.requests) == 1


def test_what_the_receiver_calls_wrong_is_set_aside_and_the_next_goes_on(home: Home) -> None:
    with Receiver(answers=[400, 400, 400]) as receiver:
        site = Site(home, faulty_plant(mqtt={"enabled": False}, webhook={"url": receiver.url}))
        with site.service() as service:
            site.step(service, 5)
            site.step(service, FIRED_S)
            until(lambda: len(receiver.requests) == 3)
            site.step(service, LENGTH_S)
            until(lambda: not site.waiting())
        assert [state for _, state in receiver.told] == ["resolved"]
        with AlertStore(home.alerts) as store:
            assert store.refused() == 1


def test_what_a_change_of_the_plant_says_goes_to_the_receivers_it_names(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = AlertStore.forget

    def slowly(store: AlertStore, line: str) -> None:
        # time enough for a courier of before to take what is in the outbox
        time.sleep(3 * IDLE_S)
        forget(store, line)

    with Receiver() as first, Receiver() as second:
        site = Site(home, faulty_plant(mqtt={"enabled": False}, webhook={"url": first.url}))
        with site.service() as service:
            site.step(service, 5)
            site.step(service, FIRED_S)
            until(lambda: [state for _, state in first.told] == ["firing"])
            monkeypatch.setattr(AlertStore, "forget", slowly)
            alerts = {"mqtt": {"enabled": False}, "webhook": {"url": second.url}}
            service.follow(Plant.model_validate({"lines": ["other"], "alerts": alerts}))
            until(lambda: [state for _, state in second.told] == ["resolved"])
        assert [state for _, state in first.told] == ["firing"]


def test_errors_tell_no_secret() -> None:
    closed = Receiver(port=free_port())
    with pytest.raises(SinkError) as away:
        poster(closed, url=f"{closed.url}/secret").deliver(POST)
    assert "secret" not in str(away.value)
    with Receiver(answers=[422]) as receiver, pytest.raises(RefusedError, match="answers 422"):
        poster(receiver).deliver(POST)


def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    start_ms = now_ms() - LENGTH_S * 1_000
    home = write_faulty_line(tmp_path / "var", start_ms, fault_s=(120, LENGTH_S))
    receiver = Receiver()
    plant = tmp_path / "plant.yaml"
    plant.write_text(
        "lines: [line1]\n"
        "defaults: {signal: {window: 50, rate_window: 10, relearn_after: 0}}\n"
        f"alerts: {{every_s: 0.5, mqtt: {{enabled: false}}, webhook: {{url: '{receiver.url}'}}}}\n"
    )
    environ = {**os.environ, "IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}
    command = [sys.executable, "-m", "iiot_platform.cli", "alerts", "run"]

    def waiting() -> int:
        if not home.alerts.exists():
            return 0
        with AlertStore(home.alerts) as store:
            return store.waiting().get(WEBHOOK, 0)

    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        until(lambda: waiting() == 1)
        process.send_signal(signal.SIGKILL)
    with receiver:
        for _ in range(2):
            with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert b"told: webhook" in process.stdout.readline()
                until(lambda: waiting() == 0)
                process.send_signal(signal.SIGTERM)
            assert process.returncode == 0
    assert [state for _, state in receiver.told] == ["firing"]


def test_a_line_that_is_added_to_the_plant_file_is_told_of_without_a_restart(
    tmp_path: Path,
) -> None:
    start_ms = now_ms() - LENGTH_S * 1_000
    home = write_faulty_line(tmp_path / "var", start_ms, fault_s=(120, LENGTH_S))
    path = tmp_path / "plant.yaml"

    def write(lines: str, receiver: Receiver) -> None:
        path.write_text(
            f"lines: {lines}\n"
            "alerts: {every_s: 0.5, mqtt: {enabled: false}, webhook:"
            f" {{url: '{receiver.url}'}}}}\n"
        )

    environ = {**os.environ, "IIOT_HOME": str(home.root), "IIOT_PLANT": str(path)}
    command = [sys.executable, "-m", "iiot_platform.cli", "alerts", "run"]
    with Receiver() as first, Receiver() as second:
        write("[other]", first)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert b"alerts of other; told: webhook" in process.stdout.readline()
                write("[other, line1]", first)
                until(lambda: [state for _, state in first.told] == ["firing"])
                # it leaves again, and somebody else is told
                write("[other]", second)
                process.send_signal(signal.SIGHUP)
                until(lambda: [state for _, state in second.told] == ["resolved"])
            finally:
                process.terminate()
        assert process.returncode == 0
        assert second.told[0][0] != first.told[0][0]
