"""The protocol of the runner: what one call sends, and what its answer means.

`build_call` and `read_answer` are pure. `execute` does one HTTP exchange with a client that the caller keeps, so
connections are reused. Nothing here touches the database, so nothing of it is held while a call waits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import structlog
from django.conf import settings

from schedules import tracing
from schedules.payloads import encode_payload, moment_text

log = structlog.get_logger(__name__)

EXECUTE_PATH: Final = "/v1/execute"
MAX_ERROR_LENGTH: Final = 1024
MAX_HEADER_COUNT: Final = 256
MAX_EXCERPT_BYTES: Final = 2048
# Of the guest and of the runner alike (RFC 9110, section 15): too early, too many, timed out, or the server's fault.
_RETRYABLE_ENVELOPE_STATUSES: Final = frozenset({408, 425, 429})


class AttemptOutcome(StrEnum):
    """What one call to the runner amounts to."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """Everything that one call says. ``payload`` is None where there is none; times are aware UTC."""

    invocation_id: UUID
    tenant_id: UUID
    registry_id: UUID
    install_id: UUID
    version_id: UUID
    content_hash: str
    config: Mapping[str, Any]
    granted_caps: list[str]
    secret_envelope: Mapping[str, Any] | None
    method: str
    path: str
    payload: Any
    trigger: str
    schedule_id: UUID | None
    scheduled_for: datetime
    attempt: int
    failed_envelopes: int
    timeout_ms: int

    @property
    def idempotency_key(self) -> str:
        """The same while an outcome is unknown, another one once a failed envelope was received."""
        return f"{self.invocation_id}:{self.failed_envelopes}"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to the runner."""

    headers: dict[str, str]
    body: bytes
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back of one call.

    ``http_status`` is the runner's own, ``envelope_status`` the guest's; either is None where none arrived.
    ``retry_after_seconds`` is what the other side asked for. ``error`` and ``excerpt``, which is how the answer begins,
    are for people and never leave the database.
    """

    outcome: AttemptOutcome
    retryable: bool = False
    http_status: int | None = None
    envelope_status: int | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    error: str = ""
    retry_after_seconds: float | None = None
    response_bytes: int | None = None
    excerpt: str = ""

    @property
    def failed_envelope(self) -> bool:
        """Whether the runner answered with a failure, which it will repeat under the same idempotency key."""
        return self.envelope_status is not None and self.outcome is not AttemptOutcome.SUCCEEDED


def make_client(*, max_connections: int) -> httpx.AsyncClient:
    """The process's one client. Redirects are not followed: the body holds secrets and is meant for one address."""
    return httpx.AsyncClient(
        base_url=settings.RUNNER_BASE_URL,
        timeout=None,  # noqa: S113 - `execute` bounds the whole exchange, body included
        limits=httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=100,
            keepalive_expiry=30,
        ),
        follow_redirects=False,
        # One client serves all tenants: nothing that one answer sets may travel with another's call.
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    )


def build_call(invocation: Invocation) -> Call:
    """The request for an invocation. Pure."""
    tenant_id, registry_id, request_id = (
        str(invocation.tenant_id),
        str(invocation.registry_id),
        str(uuid4()),
    )
    routing = {"x-alga-tenant": tenant_id, "x-alga-extension": registry_id}
    http: dict[str, Any] = {
        "method": invocation.method,
        "path": invocation.path,
        "query": {},
        "headers": routing,
    }
    if invocation.method != "GET" and invocation.payload is not None:
        http["body_b64"] = base64.b64encode(encode_payload(invocation.payload)).decode()
    body: dict[str, Any] = {
        "context": {
            "request_id": request_id,
            "tenant_id": tenant_id,
            "extension_id": registry_id,
            "install_id": str(invocation.install_id),
            "version_id": str(invocation.version_id),
            "content_hash": prefixed_hash(invocation.content_hash),
            "config": {key: _as_text(value) for key, value in invocation.config.items()},
            "trigger": invocation.trigger,
            "schedule_id": str(invocation.schedule_id) if invocation.schedule_id else None,
            "invocation_id": str(invocation.invocation_id),
            "scheduled_for": moment_text(invocation.scheduled_for),
            "attempt": invocation.attempt,
        },
        "http": http,
        "limits": {"timeout_ms": invocation.timeout_ms},
    }
    if invocation.granted_caps:
        body["providers"] = list(invocation.granted_caps)
    if invocation.secret_envelope is not None:
        body["secret_envelope"] = invocation.secret_envelope
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",  # a compressed answer could be small on the wire and huge in memory
        "x-request-id": request_id,
        "x-idempotency-key": invocation.idempotency_key,
        **routing,
    }
    return Call(
        headers=headers,
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        timeout_seconds=invocation.timeout_ms / 1000,
    )


def prefixed_hash(content_hash: str) -> str:
    """The hash with its algorithm in front, as the runner wants it."""
    return content_hash if ":" in content_hash else f"sha256:{content_hash}"


async def execute(client: httpx.AsyncClient, call: Call, *, now: datetime | None = None) -> Answer:
    """Do one exchange and say what it amounts to. Never raises for what the network or the runner does.

    Cancelling the task aborts the exchange.
    """
    limit = int(settings.EXT_RUNNER_MAX_RESPONSE_BYTES)
    try:
        async with (
            asyncio.timeout(call.timeout_seconds),
            client.stream(
                "POST", EXECUTE_PATH, content=call.body, headers=call.headers | tracing.headers()
            ) as response,
        ):
            body = await _read_at_most(response, limit)
    except TimeoutError:
        return Answer(
            outcome=AttemptOutcome.TIMED_OUT,
            retryable=True,
            error=f"The runner did not answer within {call.timeout_seconds:g} s",
        )
    except httpx.HTTPError as error:
        return Answer(
            outcome=AttemptOutcome.FAILED,
            retryable=True,
            error=f"The runner was not reached: {_describe(error)}",
        )
    except Exception as error:
        # Not foreseen, so nobody knows whether a repeat would help; a run that ends with this is better than one that
        # never does.
        log.exception("runner.unforeseen_error")
        return Answer(outcome=AttemptOutcome.FAILED, error=f"The call could not be made ({type(error).__name__})")
    if body is None and response.status_code == 200:
        return Answer(
            outcome=AttemptOutcome.FAILED,
            http_status=response.status_code,
            error=f"The runner's answer is larger than {limit} bytes",
        )
    return read_answer(
        http_status=response.status_code,
        headers=response.headers,
        body=body or b"",
        now=now or datetime.now(UTC),
    )


def read_answer(*, http_status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Answer:
    """What a complete answer of the runner means. Pure. ``now`` is what a date in ``retry-after`` is held against."""
    if http_status != 200:
        retryable = http_status == 429 or http_status >= 500
        return Answer(
            outcome=AttemptOutcome.FAILED,
            retryable=retryable,
            http_status=http_status,
            error=f"The runner answered HTTP {http_status}",
            retry_after_seconds=_retry_after(headers, now=now) if retryable else None,
            response_bytes=len(body),
            excerpt=read_excerpt(body),
        )
    try:
        envelope = _read_envelope(body)
    except ValueError as error:
        return Answer(
            outcome=AttemptOutcome.FAILED,
            http_status=http_status,
            error=str(error),
            response_bytes=len(body),
            excerpt=read_excerpt(body),
        )
    status = envelope.status
    succeeded = 200 <= status < 400
    retryable = not succeeded and (status >= 500 or status in _RETRYABLE_ENVELOPE_STATUSES)
    return Answer(
        outcome=AttemptOutcome.SUCCEEDED if succeeded else AttemptOutcome.FAILED,
        retryable=retryable,
        http_status=http_status,
        envelope_status=status,
        headers=envelope.headers,
        body=envelope.body,
        error="" if succeeded else _failure_text(status, envelope.error),
        retry_after_seconds=_first_retry_after(envelope.headers, headers, now=now) if retryable else None,
        response_bytes=len(envelope.body or b""),
        excerpt=read_excerpt(envelope.body or b""),
    )


@dataclass(frozen=True, slots=True)
class _Envelope:
    status: int
    headers: dict[str, str]
    body: bytes | None
    error: str | None


def _read_envelope(body: bytes) -> _Envelope:
    if not body.strip():
        raise ValueError("The runner's answer is empty")
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("The runner's answer is not JSON") from None
    if not isinstance(envelope, dict):
        raise ValueError("The runner's answer is not an envelope: not a JSON object")
    status, headers = envelope.get("status"), envelope.get("headers")
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
        raise ValueError("The runner's answer is not an envelope: status is not an HTTP status")
    if headers is not None and not isinstance(headers, dict):
        raise ValueError("The runner's answer is not an envelope: headers is not a map")
    error, encoded = envelope.get("error"), envelope.get("body_b64")
    if error is not None and not isinstance(error, str):
        raise ValueError("The runner's answer is not an envelope: error is not a text")
    if encoded is not None and not isinstance(encoded, str):
        raise ValueError("The runner's answer is not an envelope: body_b64 is not a text")
    try:
        decoded = None if encoded is None else base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("The runner's answer is not an envelope: body_b64 is not base64") from None
    texts = {str(name).lower(): _header_text(value) for name, value in list((headers or {}).items())[:MAX_HEADER_COUNT]}
    return _Envelope(status, texts, decoded, error)


def _header_text(value: Any) -> str:
    """A header's value: a text, a number, or the first of several."""
    first = value[0] if isinstance(value, list) and value else value
    return str(first) if isinstance(first, str | int) else ""


async def _read_at_most(response: httpx.Response, limit: int) -> bytes | None:
    """The body, or None as soon as it is longer than ``limit``; the rest is never read."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _first_retry_after(*header_sets: Mapping[str, str], now: datetime) -> float | None:
    wishes = (_retry_after(headers, now=now) for headers in header_sets)
    return next((wish for wish in wishes if wish is not None), None)


def _retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """The wish of a ``retry-after`` header in seconds: a number or a date (RFC 9110, section 10.2.3)."""
    value = next((text for name, text in headers.items() if name.lower() == "retry-after"), "").strip()
    if re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, math.ceil((moment - now).total_seconds()))


def _failure_text(status: int, error: str | None) -> str:
    said = clean_text(error or "", limit=MAX_ERROR_LENGTH - 64)
    return f"The extension answered {status}" + (f": {said}" if said else "")


def read_excerpt(body: bytes) -> str:
    """The first 2 KB of an answer as text that can be stored and shown: lines stay, other control characters go."""
    text = body[:MAX_EXCERPT_BYTES].decode("utf-8", errors="replace")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", "", text)


def clean_text(text: str, *, limit: int) -> str:
    """A text of others as it may be stored and shown: one line, no control characters, at most ``limit`` long."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text[: limit * 2]).strip()[:limit]


def _describe(error: httpx.HTTPError) -> str:
    reasons: dict[type[httpx.HTTPError], str] = {
        httpx.ConnectError: "no connection could be made",
        httpx.ReadError: "the connection was reset while reading",
        httpx.WriteError: "the connection was reset while writing",
        httpx.RemoteProtocolError: "the connection ended in the middle of the answer",
    }
    return reasons.get(type(error), type(error).__name__)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
