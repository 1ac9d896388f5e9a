"""Small pure rules: retries, payloads, manifests, identities, endpoint selectors, errors of the database."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from django.db import OperationalError

from schedules import manifests, outage, payloads, queries
from schedules.policies import RetryPolicy
from workflows import names


@pytest.mark.parametrize(
    ("recorded", "elapsed", "wanted", "delay"),
    [
        (1, 0, None, 10),
        (2, 12, None, 20),
        (3, 40, None, None),
        (1, 0, 1, 1),
        (1, 0, 0, 1),
        (1, 0, 45, 45),
        (1, 0, 601, None),
        (2, 595, None, None),
    ],
)
def test_the_pause_before_the_next_attempt(recorded, elapsed, wanted, delay):
    assert (
        RetryPolicy().delay_before_next(attempts_recorded=recorded, elapsed_seconds=elapsed, wanted_seconds=wanted)
        == delay
    )


def test_the_pause_never_exceeds_the_longest():
    policy = RetryPolicy(max_attempts=10, first_delay_seconds=100, longest_delay_seconds=150, deadline_seconds=9999)

    assert policy.delay_before_next(attempts_recorded=5, elapsed_seconds=0, wanted_seconds=None) == 150


@pytest.mark.parametrize("payload", [None, {}, [], {"a": None}, [1.5, "ü", {"\\u0000": "\\u0000"}]])
def test_usable_payloads(payload):
    assert payloads.problem_with_payload(payload) == ""


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("text", "object or array"),
        (5, "object or array"),
        (False, "object or array"),
        ({"a": float("nan")}, "cannot carry"),
        ({"a": float("inf")}, "cannot carry"),
        ({"a": "\ud800"}, "cannot carry"),
        ({"a\x00": 1}, "NUL"),
        (["x" * 102_400], "at most 102400"),
    ],
)
def test_unusable_payloads(payload, problem):
    assert problem in payloads.problem_with_payload(payload)


def test_the_limit_counts_numbers_as_the_database_writes_them():
    assert "at most 102400" in payloads.problem_with_payload([1e308] * 400)
    assert payloads.problem_with_payload([1.5, 1e-7, 12345.678]) == ""


@pytest.mark.parametrize(
    ("declared", "path", "matches"),
    [
        ("/api/items/:id", "/api/items/7", True),
        ("/api/items/{id}/x", "/api/items/7/x", True),
        ("/api/items/:id", "/api/items/7/8", False),
        ("/api/items/:id", "/api/items/", False),
        ("/api/a.b", "/api/axb", False),
    ],
)
def test_a_declared_path_matches_its_parameters(declared, path, matches):
    assert manifests.path_matches(declared, path) is matches


def test_a_payload_nested_too_deep_is_refused_without_recursion():
    payload = []
    for _ in range(50_000):
        payload = [payload]

    assert "nested deeper" in payloads.problem_with_payload(payload)


def test_the_limit_counts_utf_8_bytes():
    assert payloads.problem_with_payload(["x" * (102_400 - 4)]) == ""
    assert "102401 bytes" in payloads.problem_with_payload(["ü" * 51_198 + "x"])


@pytest.mark.parametrize(
    ("path", "normalised"),
    [("a", "/a"), ("/a", "/a"), ("//a///b/", "/a/b/"), (" /a ", "/a"), ("", "/"), ("/ü", "/ü")],
)
def test_paths_are_normalised(path, normalised):
    assert manifests.normalise_path(path) == normalised


@pytest.mark.parametrize("path", ["/a b", "/a?x=1", "/a#b", "/a\x00", "/../a", "/./a", "/" + "x" * 1024, "/\ud800"])
def test_unusable_paths_are_refused(path):
    with pytest.raises(ValueError, match="path"):
        manifests.normalise_path(path)


@pytest.mark.parametrize(
    ("given", "normalised"),
    [([" Cap:A ", "cap:a", "cap:b"], ("cap:a", "cap:b")), ("cap:a", ()), (None, ()), ([1, "", "x\x00"], ())],
)
def test_capabilities_are_normalised(given, normalised):
    assert manifests.normalise_capabilities(given) == normalised


def test_a_manifest_of_absurd_size_is_cut_and_reported():
    endpoints = [{"method": "GET", "path": f"/{number}"} for number in range(1500)]

    read = manifests.read_manifest({"api": {"endpoints": endpoints}})

    assert len(read.endpoints) == 1000
    assert read.skipped[-1].index == 1000


@pytest.mark.parametrize(
    ("text", "method", "path"),
    [("POST /a", "POST", "/a"), ("post   a", "POST", "/a"), ("/a", None, "/a"), ("//a", None, "/a")],
)
def test_endpoint_selectors(text, method, path):
    assert queries.parse_endpoint_selector(text) == queries.EndpointSelector(method, path)


@pytest.mark.parametrize("text", ["", " ", "BREW /a", "POST /a b", "/a b"])
def test_bad_endpoint_selectors(text):
    with pytest.raises(ValueError, match=r"method|path|write"):
        queries.parse_endpoint_selector(text)


def test_a_slot_has_one_identity_whoever_computes_it():
    schedule_id = uuid.UUID(int=7)
    slot = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
    elsewhere = slot.astimezone(timezone(timedelta(hours=5, minutes=30))).replace(microsecond=999)

    # Released: this very value is in histories and in the runner's memory.
    expected = uuid.UUID("350f81d7-e8b3-5b85-95cd-53787bf737c6")
    assert names.slot_invocation_id(schedule_id=schedule_id, slot=slot) == expected
    assert names.slot_invocation_id(schedule_id=str(schedule_id), slot=elsewhere) == expected
    assert names.request_invocation_id(schedule_id=schedule_id, request_key="a") != expected


@pytest.mark.parametrize(
    ("cause", "sqlstate", "words"),
    [
        (psycopg.errors.DeadlockDetected(), "40P01", "The database is busy"),
        (psycopg.errors.LockNotAvailable(), "55P03", "The database is busy"),
        (psycopg.errors.QueryCanceled(), "57014", "The database is busy"),
        (psycopg.errors.SerializationFailure(), "40001", "The database is busy"),
        (psycopg.errors.AdminShutdown(), "57P01", "The database does not answer"),
        (psycopg.OperationalError("connection refused"), None, "The database does not answer"),
        (None, None, "The database does not answer"),
    ],
)
def test_what_is_said_of_an_error_of_the_database(cause, sqlstate, words):
    error = OperationalError("with a value of some row")
    error.__cause__ = cause

    assert (outage.sqlstate_of(error), outage.describe(error)) == (sqlstate, words)
