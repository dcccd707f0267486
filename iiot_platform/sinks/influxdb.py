"""InfluxDB 1.8+, 2.x and 3 behind one sink: ready line protocol, written synchronously.

InfluxDB is a view of the tables and can be rebuilt; every write and every delete can be repeated.
"""

import gzip
import ipaddress
import json
import logging
import re
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import pyarrow as pa
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.retry import WritesRetry
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService

from iiot_platform.config.settings import InfluxSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.line_protocol import Lines, render
from iiot_platform.sinks.refusals import RefusedError, RefusedRowsError
from iiot_platform.sinks.sink import Server, Written
from iiot_platform.sinks.vanished import left_empty, old_values, standing_query, tombstones, within

MAX_POINTS: Final = 5_000
MAX_BYTES: Final = 8_000_000
_MAX_OFFENDERS: Final = 4
"""Refused rows that are searched for one by one, before the rest is only counted."""
_FIRST_WITHOUT_DELETE: Final = 3
_TOO_LARGE: Final = 413
_REFUSALS: Final = frozenset({400, 422})
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500

_log = logging.getLogger(__name__)


class InfluxSink:
    """Writes tables to one bucket and deletes ranges of them.

    Args:
        settings: where the server is and how to log in.
        timeout_s: for one request.
        retry_for_s: how long a request that meets 429, 5xx or a time-out is repeated.
    """

    request_rows = MAX_POINTS

    def __init__(
        self, settings: InfluxSettings, *, timeout_s: float = 5.0, retry_for_s: float = 3.0
    ) -> None:
        self._settings = settings
        self._retry_for_s = retry_for_s
        parts = urlsplit(settings.url)
        self._where = f"InfluxDB at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._secrets = _secrets(settings)
        self._client: Any = InfluxDBClient(  # Any: the client is typed in part only
            url=settings.url,
            token=_login(settings),
            org=settings.org,
            timeout=int(timeout_s * 1_000),
            verify_ssl=settings.verify_tls,
            ssl_ca_cert=None if settings.ca_file is None else str(settings.ca_file),
        )
        # The service below WriteApi: a synchronous WriteApi drops the retry given to a request,
        # and the time of a retry given to the client ends for ever, counted from its making.
        self._writes: Any = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]  # the client's
        self._version: str | None = None
        self._compressed = not is_loopback(parts.hostname or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ping(self) -> str:
        """The server's version, empty where it does not say; tells nothing about the token.

        1.x and 2.x say it in a header, 3 in the body, and what stands between us and the server
        may have left out the header: then `/health` is asked.

        Raises:
            SinkError: the server does not answer.
        """
        body, headers = self._request("GET", "/ping")
        found = headers.get("X-Influxdb-Version") or _version_in(body)
        if not found:
            try:
                found = _version_in(self._request("GET", "/health")[0])
            except SinkError:  # older ones have none
                found = ""
        return str(found)

    @property
    def version(self) -> str:
        """The version, asked once.

        Raises:
            SinkError: the server does not answer.
        """
        if self._version is None:
            self._version = self.ping()
        return self._version

    @property
    def can_delete(self) -> bool:
        """False on version 3; where a server does not say what it is, it is asked to delete.

        Raises:
            SinkError: the server does not answer.
        """
        major = re.match(r"v?(\d+)", self.version)
        return major is None or int(major[1]) < _FIRST_WITHOUT_DELETE

    def server(self) -> Server:
        """Which version answers, and whether it deletes.

        Raises:
            SinkError: the server does not answer.
        """
        return Server("InfluxDB", self.version, self.can_delete)

    def write(self, table: schema.Table, rows: pa.Table) -> Written:
        """Write rows; the same time and tags replace what was there, field by field.

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away, overloaded or does not let us in; any part may be stored.
        """
        points = dropped = 0
        refused: list[tuple[int, str, str]] = []
        unsearched = 0
        for start in range(0, rows.num_rows, MAX_POINTS):
            lines = render(table, rows.slice(start, MAX_POINTS))
            points += len(lines)
            dropped += lines.dropped
            for lo, hi in lines.requests(MAX_POINTS, MAX_BYTES):
                unsearched += self._store(lines, lo, hi, start, refused)
        if refused:
            row, line, reason = refused[0]
            raise RefusedRowsError(
                self._where,
                table.name,
                row=row,
                line=self._safe(line),
                reason=reason,
                points=len(refused) + unsearched,
                of=points,
                advice="where a field's type is in conflict, move the old measurement away or"
                " write to a new bucket",
            )
        return Written(points, dropped)

    def delete_range(self, table: schema.Table, line: str, start_ms: int, end_ms: int) -> None:
        """Delete a line's points of a table with times in [start_ms, end_ms).

        InfluxQL's DELETE takes half-open intervals on 1.x and 2.x alike (`/api/v2/delete` would
        include the end); version 3 can not delete.

        Raises:
            RefusedError: the server is of a version that can not delete.
            SinkError: the server is away or refuses.
        """
        if not self.can_delete:
            raise RefusedError(
                f"{self._where} is version {self.version}, which can not delete rows of table "
                f"'{table.name}'; rewrite the range instead"
            )
        self._query("delete from", table, delete_statement(table, line, start_ms, end_ms))

    def rewrite(
        self, table: schema.Table, line: str, start_ms: int, end_ms: int, rows: pa.Table
    ) -> Written:
        """Make rows all that a line has in a table with times in [start_ms, end_ms).

        Where the server can not delete, what stands there and is not among the rows is
        overwritten as deleted; a field that a row leaves empty keeps its old value there, which
        is logged.

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away, overloaded or does not let us in; any part may be stored.
        """
        if self.can_delete:
            self.delete_range(table, line, start_ms, end_ms)
            return self.write(table, rows)
        empty = left_empty(table, rows)
        asked = standing_query(table, line, start_ms, end_ms, empty)
        answer = self._query("read", table, asked)
        lines = tombstones(table, rows, answer)
        for start in range(0, len(lines), MAX_POINTS):
            try:
                self._post("".join(lines[start : start + MAX_POINTS]).encode())
            except ApiException as error:
                raise self._failure(error) from error
            except urllib3.exceptions.HTTPError as error:
                raise self._unreached(error) from error
        kept = old_values(table, rows, answer, empty)
        if kept:
            _log.warning(
                "%s can not empty a field: table '%s' of line '%s' from %s keeps old values of %s;"
                " 'iiot sink rebuild' into a new database leaves them out",
                *(self._where, table.name, line, from_ms(start_ms).isoformat()),
                ", ".join(f"{name} ({count} rows)" for name, count in sorted(kept.items())),
            )
        return self.write(table, rows)

    def _query(self, what: str, table: schema.Table, statement: str) -> dict[str, Any]:
        """The answer to an InfluxQL statement, times in milliseconds."""
        body, _ = self._request("POST", "/query", db=self._settings.bucket, epoch="ms", q=statement)
        answer, problem = _answered(body)
        if problem:
            raise SinkError(
                f"{self._where}, database '{self._settings.bucket}', refuses to {what} "
                f"'{table.measurement}': {self._safe(problem)}"
            )
        return answer

    def _store(
        self, lines: Lines, lo: int, hi: int, first_row: int, refused: list[tuple[int, str, str]]
    ) -> int:
        """Write the lines of [lo, hi); searches refused ones by halves, returns those left.

        Servers differ in what they store of a request with one bad line, and seldom name it:
        halving stores the good ones on all of them and finds the bad.
        """
        try:
            self._post(lines.body(lo, hi))
        except ApiException as error:
            if error.status not in _REFUSALS and error.status != _TOO_LARGE:
                raise self._failure(error) from error
            if hi - lo > 1:
                if error.status in _REFUSALS and len(refused) >= _MAX_OFFENDERS:
                    return hi - lo
                middle = (lo + hi) // 2
                return self._store(lines, lo, middle, first_row, refused) + self._store(
                    lines, middle, hi, first_row, refused
                )
            text = lines.body(lo, hi).decode().rstrip("\n")
            refused.append((first_row + int(lines.rows[lo]), text, self._reason(error)))
        except urllib3.exceptions.HTTPError as error:
            raise self._unreached(error) from error
        return 0

    def _post(self, body: bytes) -> None:
        # level 1 costs a tenth of the client's own level 9 and keeps most of the gain
        compressed = {"content_encoding": "gzip"} if self._compressed else {}
        self._writes.post_write(
            bucket=self._settings.bucket,
            org=self._settings.org,
            body=gzip.compress(body, 1) if self._compressed else body,
            precision=WritePrecision.MS,
            content_type="text/plain; charset=utf-8",
            **compressed,
            urlopen_kw={"retries": _Retry.within(self._retry_for_s)},
        )

    def _request(self, method: str, path: str, **form: str) -> tuple[str, Any]:
        """Body and headers of a request outside the client's own services."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        try:
            response = self._client.api_client.call_api(
                path,
                method,
                header_params=headers,
                post_params=list(form.items()),
                _preload_content=False,
                _return_http_data_only=False,
                urlopen_kw={"retries": _Retry.within(self._retry_for_s)},
            )
        except ApiException as error:
            raise self._failure(error) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unreached(error) from error
        return response[0].data.decode("utf-8", "replace"), response[2]

    def _failure(self, error: ApiException) -> SinkError:
        advice = {
            401: "check the token (INFLUX_TOKEN) or user and password",
            403: f"let the token read and write bucket '{self._settings.bucket}'",
            404: f"create bucket '{self._settings.bucket}' in organisation "
            f"'{self._settings.org}', or mend INFLUX_BUCKET and INFLUX_ORG",
        }.get(int(error.status or 0), "what is not written stays in the outbox and is tried again")
        return SinkError(f"{self._where} answers {error.status}: {self._reason(error)}; {advice}")

    def _unreached(self, error: urllib3.exceptions.HTTPError) -> SinkError:
        cause = getattr(error, "reason", None) or error
        return SinkError(
            f"{self._where} does not answer ({type(cause).__name__}: {self._safe(str(cause))}); "
            "what is not written stays in the outbox and is tried again"
        )

    def _reason(self, error: ApiException) -> str:
        """What the server says, from the bodies of 1.x, 2.x and 3."""
        body = error.body if error.body is not None else ""
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        if isinstance(said, dict):
            text = str(said.get("message") or said.get("error") or text)
        return self._safe(text.strip() or str(error.reason))

    def _safe(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Retry(WritesRetry):
    """The client's retry, for 429 and 5xx only and never beyond its time."""

    @classmethod
    def within(cls, seconds: float) -> "_Retry":
        """A retry that counts from now; it must be made anew for each request."""
        return cls(
            total=8,
            retry_interval=0.25,
            max_retry_delay=max(seconds / 2, 0.25),
            max_retry_time=seconds,
            allowed_methods=["GET", "POST"],
            raise_on_status=False,
        )

    def is_retry(
        self,
        method: str,
        status_code: int,
        has_retry_after: bool = False,  # noqa: FBT001, FBT002  # the signature of urllib3
    ) -> bool:
        """True for what a later attempt may mend."""
        del has_retry_after
        retryable = status_code == _TOO_MANY or status_code >= _SERVER_ERROR
        return bool(self.total) and retryable and bool(self._is_method_retryable(method))

    def get_retry_after(self, response: Any) -> float | None:
        """The server's wish, as far as there is time left."""
        wish: float | None = super().get_retry_after(response)  # type: ignore[no-untyped-call]  # the client's
        return None if wish is None else min(wish, float(self.max_retry_time))


def _login(settings: InfluxSettings) -> str:
    """The token; InfluxDB 1.8 takes `user:password` in its place."""
    token = settings.token.get_secret_value()
    if token or settings.username is None or settings.password is None:
        return token
    return f"{settings.username}:{settings.password.get_secret_value()}"


def _secrets(settings: InfluxSettings) -> tuple[str, ...]:
    secrets = (settings.token, settings.password)
    return tuple(s.get_secret_value() for s in secrets if s is not None and s.get_secret_value())


def delete_statement(table: schema.Table, line: str, start_ms: int, end_ms: int) -> str:
    """InfluxQL that deletes a line's rows of [start_ms, end_ms)."""
    return f'DELETE FROM "{table.measurement}" WHERE {within(line, start_ms, end_ms)}'


def is_loopback(host: str) -> bool:
    """True where what is sent never leaves the machine: compressing it would gain nothing."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version_in(body: str) -> str:
    """The version in the answer of `/ping` or `/health`, else empty."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("version") or "") if isinstance(said, dict) else ""


def _answered(body: str) -> tuple[dict[str, Any], str | None]:
    """An InfluxQL answer, and the error that one with status 200 may still carry."""
    try:
        answer: dict[str, Any] = json.loads(body) if body.strip() else {}
    except ValueError:
        return {}, f"no JSON in the answer: {body[:200]}"
    if answer.get("error"):
        return answer, str(answer["error"])
    results = answer.get("results", ())
    return answer, next((str(r["error"]) for r in results if r.get("error")), None)
