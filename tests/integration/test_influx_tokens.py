"""`deploy/influxdb/init` against a real InfluxDB 2: tokens with no more rights than they need."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.servers.ports import free_port
from tests.servers.stack import DEPLOY

INFLUXD = Path(os.environ.get("IIOT_TEST_INFLUX2", ""))
"""influxd of version 2, with the command `influx` beside it."""
pytestmark = pytest.mark.skipif(
    "IIOT_TEST_INFLUX2" not in os.environ,
    reason="IIOT_TEST_INFLUX2 names no influxd of version 2, which Debian does not have",
)
ADMIN = "made-for-a-test-and-of-no-use-elsewhere"
ORG, BUCKET, OTHER = "iiot", "iiot", "other"
OWNERS = {"platform", "grafana"}
START_S = 120.0
AT_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Server:
    """A running server, and the folder that tokens are given to."""

    port: int
    given_to: Path

    def environ(self) -> dict[str, str]:
        return {
            "PATH": f"{INFLUXD.parent}:{os.environ['PATH']}",
            "INFLUX_HOST": f"http://127.0.0.1:{self.port}",
            "INFLUX_CONFIGS_PATH": str(self.given_to / "configs"),
            "INFLUX_ORG": ORG,
            "INFLUX_BUCKET": BUCKET,
            "INFLUX_ADMIN_TOKEN_FILE": str(self.given_to / "admin"),
            "GIVEN_TO": str(self.given_to),
        }

    def init(self) -> str:
        """What the script says."""
        done = subprocess.run(
            ["bash", DEPLOY / "influxdb" / "init"],
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def influx(self, *words: str) -> str:
        """What the server's own command answers to the administrator."""
        return subprocess.run(
            [INFLUXD.parent / "influx", *words],
            env=self.environ() | {"INFLUX_TOKEN": ADMIN},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def token(self, owner: str) -> str:
        return (self.given_to / owner / "token").read_text(encoding="utf-8").strip()

    def ask(self, owner: str, path: str, query: Mapping[str, str], body: str = "") -> int:
        """The status of a POST with somebody's token."""
        return self.request(owner, "POST", path, query, body)[0]

    def request(
        self, owner: str, method: str, path: str, query: Mapping[str, str], body: str = ""
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Token {self.token(owner)}"}
            connection.request(method, f"{path}?{urlencode(query)}", body.encode(), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def write(self, owner: str, bucket: str) -> int:
        query = {"org": ORG, "bucket": bucket, "precision": "ms"}
        return self.ask(owner, "/api/v2/write", query, f"m value=1 {AT_MS}")

    def delete(self, owner: str, bucket: str) -> int:
        span = {"start": "2023-01-01T00:00:00Z", "stop": "2024-01-01T00:00:00Z"}
        return self.ask(owner, "/api/v2/delete", {"org": ORG, "bucket": bucket}, json.dumps(span))

    def values(self, owner: str, text: str = "SELECT value FROM m") -> list[object]:
        """The series that InfluxQL answers."""
        status, answer = self.request(owner, "GET", "/query", {"db": BUCKET, "q": text})
        assert status == HTTPStatus.OK, answer
        (found,) = json.loads(answer)["results"]
        assert "error" not in found
        return list(found.get("series", []))

    def authorizations(self) -> dict[str, tuple[str, frozenset[str]]]:
        """The id and the rights of each token, by what it is described as."""
        found = json.loads(self.influx("auth", "list", "--json"))
        return {
            one["description"]: (one["id"], frozenset(one["permissions"] or ())) for one in found
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("influx2")
    port = free_port()
    running = Server(port, root)
    for owner in OWNERS:
        (root / owner).mkdir()
    (root / "admin").write_text(ADMIN + "\n", encoding="utf-8")
    with (root / "influxd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                INFLUXD,
                f"--http-bind-address=127.0.0.1:{port}",
                f"--bolt-path={root / 'bolt'}",
                f"--sqlite-path={root / 'sqlite'}",
                f"--engine-path={root / 'engine'}",
                "--reporting-disabled",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(running, process)
            running.influx(
                *("setup", "--force", "--username", "admin", "--password", "of-this-test"),
                *("--token", ADMIN, "--org", ORG, "--bucket", BUCKET),
            )
            running.influx("bucket", "create", "--org", ORG, "--name", OTHER)
            yield running
        finally:
            process.terminate()
            process.wait(60)


def wait_for(running: Server, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, "influxd has ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", running.port)).close()
            return
        time.sleep(0.1)
    raise AssertionError("influxd does not answer")


def test_tokens_are_made_once_and_a_lost_one_anew(server: Server) -> None:
    assert server.init().count("made the token of") == len(OWNERS)
    tokens = {owner: server.token(owner) for owner in OWNERS}
    known = server.authorizations()
    mapped = server.influx("v1", "dbrp", "list", "--org", ORG, "--json")

    assert server.init() == ""
    assert {owner: server.token(owner) for owner in OWNERS} == tokens
    assert server.authorizations() == known
    assert server.influx("v1", "dbrp", "list", "--org", ORG, "--json") == mapped

    (server.given_to / "grafana" / "token").write_text("of a volume that is gone\n", "utf-8")
    assert server.init() == "made the token of grafana\n"
    assert server.token("platform") == tokens["platform"]
    assert server.values("grafana") == []


def test_grafana_may_read_and_nothing_else(server: Server) -> None:
    server.init()
    assert server.write("platform", BUCKET) == HTTPStatus.NO_CONTENT
    assert server.values("grafana") == server.values("platform") != []
    assert server.write("grafana", BUCKET) == HTTPStatus.FORBIDDEN
    assert server.delete("grafana", BUCKET) == HTTPStatus.FORBIDDEN
    assert server.values("grafana") != []


def test_the_platform_writes_and_deletes_in_its_bucket_alone(server: Server) -> None:
    server.init()
    assert server.write("platform", BUCKET) == HTTPStatus.NO_CONTENT
    assert server.values("platform") != []
    assert server.delete("platform", BUCKET) == HTTPStatus.NO_CONTENT
    assert server.values("platform") == []
    # whose existence is none of its business either
    hidden = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
    assert server.write("platform", OTHER) in hidden
    assert server.delete("platform", OTHER) in hidden


def test_tokens_have_the_rights_to_one_bucket_and_no_others(server: Server) -> None:
    server.init()
    found = json.loads(server.influx("bucket", "list", "--org", ORG, "--name", BUCKET, "--json"))
    suffix = f"/buckets/{found[0]['id']}"
    for owner, kinds in {"platform": {"read", "write"}, "grafana": {"read"}}.items():
        rights = server.authorizations()[owner][1]
        assert {right.partition(":")[0] for right in rights} == kinds
        assert all(right.endswith(suffix) for right in rights), rights
