"""What one call to the runner says, and what its answers mean."""

import base64
import json
import uuid
from datetime import UTC, datetime

import pytest

from schedules import runner
from schedules.runner import AttemptOutcome, Invocation

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def invocation(**changes):
    values = {
        "invocation_id": uuid.UUID(int=1),
        "tenant_id": uuid.UUID(int=2),
        "registry_id": uuid.UUID(int=3),
        "install_id": uuid.UUID(int=4),
        "version_id": uuid.UUID(int=5),
        "content_hash": "ab" * 32,
        "config": {},
        "granted_caps": [],
        "secret_envelope": None,
        "method": "POST",
        "path": "/api/x",
        "payload": None,
        "trigger": "schedule",
        "schedule_id": uuid.UUID(int=6),
        "scheduled_for": datetime(2026, 11, 21, 4, 0, tzinfo=UTC),
        "attempt": 1,
        "failed_envelopes": 0,
        "timeout_ms": 30000,
    }
    return Invocation(**(values | changes))


def body_of(**changes):
    return json.loads(runner.build_call(invocation(**changes)).body)


def read(status=200, *, envelope=None, raw=None, headers=None):
    body = raw if raw is not None else json.dumps(envelope).encode()
    return runner.read_answer(http_status=status, headers=headers or {}, body=body, now=NOW)


def test_absent_members_are_absent_and_not_null():
    body = body_of()

    assert set(body) == {"context", "http", "limits"}
    assert set(body["http"]) == {"method", "path", "query", "headers"}
    assert body["context"]["scheduled_for"] == "2026-11-21T04:00:00Z"


def test_the_payload_travels_as_compact_utf_8():
    encoded = body_of(payload={"a": [1, "ü"]})["http"]["body_b64"]

    assert base64.b64decode(encoded).decode() == '{"a":[1,"ü"]}'


def test_a_get_has_no_body():
    assert "body_b64" not in body_of(method="GET", payload={"a": 1})["http"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [("ab" * 32, "sha256:" + "ab" * 32), ("sha256:" + "ab" * 32, "sha256:" + "ab" * 32), ("sha512:cd", "sha512:cd")],
)
def test_the_hash_carries_its_algorithm(stored, sent):
    assert body_of(content_hash=stored)["context"]["content_hash"] == sent


def test_config_is_a_map_of_texts():
    config = body_of(config={"a": "x", "b": 1, "c": None, "d": {"e": True}})["context"]["config"]

    assert config == {"a": "x", "b": "1", "c": "null", "d": '{"e":true}'}


def test_the_key_changes_with_the_failed_envelopes_only():
    keys = [
        runner.build_call(invocation(attempt=attempt, failed_envelopes=failed)).headers["x-idempotency-key"]
        for attempt, failed in ((1, 0), (2, 0), (3, 1))
    ]

    assert keys == [f"{uuid.UUID(int=1)}:0", f"{uuid.UUID(int=1)}:0", f"{uuid.UUID(int=1)}:1"]


@pytest.mark.parametrize("status", [200, 201, 204, 299, 301, 399])
def test_envelopes_2xx_and_3xx_succeed(status):
    answer = read(envelope={"status": status, "headers": {}, "body_b64": None, "error": None})

    assert answer.outcome is AttemptOutcome.SUCCEEDED
    assert not answer.failed_envelope


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (404, False), (408, True), (409, False), (425, True), (429, True), (500, True), (599, True)],
)
def test_other_envelopes_fail_for_good_or_for_now(status, retryable):
    answer = read(envelope={"status": status})

    assert answer.outcome is AttemptOutcome.FAILED
    assert answer.retryable is retryable
    assert answer.failed_envelope


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (401, False), (404, False), (429, True), (500, True), (502, True)]
)
def test_the_runners_own_errors_are_no_envelopes(status, retryable):
    answer = read(status, raw=b"whatever")

    assert answer.retryable is retryable
    assert not answer.failed_envelope
    assert answer.error == f"The runner answered HTTP {status}"


@pytest.mark.parametrize("status", [204, 302, 418])
def test_an_unexpected_http_status_is_final(status):
    assert not read(status, raw=b"").retryable


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  \n",
        b"not json",
        b"null",
        b"[]",
        b"7",
        b'"200"',
        b"{}",
        b'{"status": true}',
        b'{"status": 99}',
        b'{"status": 600}',
        b'{"status": 200.5}',
        b'{"status": 200, "headers": []}',
        b'{"status": 200, "body_b64": 5}',
        b'{"status": 200, "body_b64": "not base64!"}',
        b'{"status": 200, "body_b64": "\xc3\xbc"}',
        b'{"status": 200, "error": {}}',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"status": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_envelope_is_final_and_says_so(raw):
    answer = read(raw=raw)

    assert answer.outcome is AttemptOutcome.FAILED
    assert not answer.retryable
    assert answer.error.startswith("The runner's answer is ")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("Sat, 21 Nov 2026 12:01:30 GMT", 90),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("99999999999999999999", None),
        ("\u0661", None),
        ("Sat, 99 Nov 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value, seconds):
    for answer in (
        read(503, raw=b"", headers={"Retry-After": value}),
        read(envelope={"status": 503, "headers": {"Retry-After": value}}),
        read(envelope={"status": 503}, headers={"retry-after": value}),
    ):
        assert answer.retry_after_seconds == seconds


def test_the_guests_own_wish_wins_over_the_runners():
    answer = read(envelope={"status": 503, "headers": {"retry-after": "5"}}, headers={"retry-after": "9"})

    assert answer.retry_after_seconds == 5


@pytest.mark.parametrize("value", [5, "5", ["5", "9"]])
def test_the_guest_may_give_its_headers_as_numbers_or_lists(value):
    assert read(envelope={"status": 503, "headers": {"Retry-After": value}}).retry_after_seconds == 5


def test_an_unreadable_wish_of_the_guest_does_not_hide_the_runners():
    answer = read(envelope={"status": 503, "headers": {"retry-after": "soon"}}, headers={"retry-after": "9"})

    assert answer.retry_after_seconds == 9


def test_error_texts_are_one_clean_line():
    answer = read(envelope={"status": 500, "error": "a\r\nb\x00\x1b[31mc\u2028" + "x" * 5000})

    assert answer.error.startswith("The extension answered 500: a b [31mc x")
    assert len(answer.error) <= 1024
