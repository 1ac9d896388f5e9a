"""What becomes of a run, through the real worker, the real engine and a runner that misbehaves in every way."""

import asyncio
import threading
import uuid

import pytest
from temporalio.client import Client

from tests.support.fake_runner import answers, floods, hangs, resets, sends
from tests.support.waiting import eventually

SOON = {"retry-after": "1"}


def run_and_finish(world, **body):
    schedule = world.create()
    return world.finished_run(world.run_now(schedule, body=body)["id"])


def test_a_succeeded_run_shows_what_ran(world, worker, fake_runner):
    schedule = world.create(payload={"full": True})

    queued = world.run_now(schedule)
    assert queued["status"] in {"queued", "running", "succeeded"}
    run = world.finished_run(queued["id"])

    assert run["status"] == "succeeded"
    assert run["attempts"] == 1
    assert run["version"] == "1.0.0"
    assert run["content_hash"] == "a" * 64
    assert run["http_status"] == 200
    assert run["duration_ms"] >= 0
    assert run["trigger"] == "run_now"
    assert run["slot"]
    assert run["endpoint_path"] == world.path
    assert run["attempt_log"][0]["outcome"] == "succeeded"
    shown = world.api("GET", f"schedules/{schedule['id']}")
    assert shown["last_run_status"] == "succeeded"
    assert shown["last_run_at"] == run["finished_at"]
    assert shown["last_error"] is None


def test_the_runner_is_called_as_the_contract_says(world, worker, fake_runner):
    world.put_install(
        config={"region": "eu", "retries": 3, "nested": {"a": [1]}}, secret_envelope={"ciphertext": "c2VjcmV0"}
    )
    run = run_and_finish(world, payload={"grüße": [1, 2]})

    (call,) = fake_runner.calls[world.path]
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-idempotency-key"] == f"{run['id']}:0"
    assert call.headers["x-alga-tenant"] == str(world.tenant_id)
    assert call.headers["x-alga-extension"] == str(world.registry_id)
    assert call.headers["x-request-id"] == call.context["request_id"]
    version_id = call.context.pop("version_id")
    assert uuid.UUID(version_id)
    assert call.context == {
        "request_id": call.context["request_id"],
        "tenant_id": str(world.tenant_id),
        "extension_id": str(world.registry_id),
        "install_id": str(world.install_id),
        "content_hash": "sha256:" + "a" * 64,
        "config": {"region": "eu", "retries": "3", "nested": '{"a":[1]}'},
        "trigger": "run_now",
        "schedule_id": run["schedule_id"],
        "invocation_id": run["id"],
        "scheduled_for": run["slot"],
        "attempt": 1,
    }
    http = call.body["http"]
    assert call.payload == {"grüße": [1, 2]}
    assert http["method"] == "POST"
    assert http["query"] == {}
    assert http["headers"] == {"x-alga-tenant": str(world.tenant_id), "x-alga-extension": str(world.registry_id)}
    assert call.body["limits"] == {"timeout_ms": 2000}
    assert call.body["providers"] == ["cap:scheduler.manage"]
    assert call.body["secret_envelope"] == {"ciphertext": "c2VjcmV0"}
    assert "user" not in call.body


def test_a_get_endpoint_and_an_empty_payload_send_no_body(world, worker, fake_runner):
    schedule = world.create(endpoint=f"GET {world.path}/status", payload={"ignored": True})
    world.finished_run(world.run_now(schedule)["id"])

    (call,) = fake_runner.calls[f"{world.path}/status"]
    assert "body_b64" not in call.body["http"]
    assert "secret_envelope" not in call.body


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (answers(404, error="no such report"), "failed", "The extension answered 404: no such report"),
        (answers(200, http_status=404), "failed", "The runner answered HTTP 404"),
        (sends(b""), "failed", "The runner's answer is empty"),
        (sends(b"<html>"), "failed", "The runner's answer is not JSON"),
        (sends(b"[" * 60_000), "failed", "The runner's answer is not JSON"),
        (sends(b"[1]"), "failed", "The runner's answer is not an envelope: not a JSON object"),
        (sends(b'{"status": "200"}'), "failed", "The runner's answer is not an envelope: status is not an HTTP status"),
        (
            sends(b'{"status": 200, "body_b64": "%%"}'),
            "failed",
            "The runner's answer is not an envelope: body_b64 is not base64",
        ),
    ],
)
def test_a_final_failure_is_not_repeated(world, worker, fake_runner, behaviour, status, error):
    fake_runner.script(world.path, behaviour)

    run = run_and_finish(world)

    assert run["status"] == status
    assert run["error"] == error
    assert run["attempts"] == 1
    assert len(fake_runner.calls[world.path]) == 1
    assert world.api("GET", f"schedules/{run['schedule_id']}")["last_error"] == error


def test_an_oversized_answer_is_cut_off_at_the_limit(world, worker, fake_runner):
    fake_runner.script(world.path, floods(megabytes=64))

    run = run_and_finish(world)

    assert run["status"] == "failed"
    assert run["error"] == "The runner's answer is larger than 65536 bytes"
    # Socket buffers take a few megabytes that nobody reads.
    assert eventually(lambda: fake_runner.flooded) < 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("behaviour", "keys_differ"),
    [
        (answers(503, headers=SOON), True),
        (answers(429, headers=SOON), True),
        (answers(425, headers=SOON), True),
        (answers(408, headers=SOON), True),
        (answers(200, http_status=503, http_headers=SOON), False),
        (answers(200, http_status=429, http_headers=SOON), False),
    ],
)
def test_a_retryable_failure_is_repeated_under_the_right_key(world, worker, fake_runner, behaviour, keys_differ):
    fake_runner.script(world.path, behaviour, answers())

    run = run_and_finish(world)

    assert run["status"] == "succeeded"
    assert run["attempts"] == 2
    first, second = fake_runner.calls[world.path]
    assert first.headers["x-idempotency-key"] == f"{run['id']}:0"
    assert second.headers["x-idempotency-key"] == f"{run['id']}:{1 if keys_differ else 0}"
    assert second.context["attempt"] == 2
    assert second.context["invocation_id"] == first.context["invocation_id"]
    assert 1 <= second.at - first.at < 8


@pytest.mark.parametrize("behaviour", [resets(), hangs()], ids=["reset", "hang"])
def test_an_unknown_outcome_is_repeated_under_the_same_key(world, worker, fake_runner, behaviour):
    fake_runner.script(world.path, behaviour, answers())

    run = run_and_finish(world)

    assert run["status"] == "succeeded"
    first, second = fake_runner.calls[world.path]
    assert first.headers["x-idempotency-key"] == second.headers["x-idempotency-key"]
    assert run["attempt_log"][0]["error"]


def test_what_one_answer_sets_does_not_travel_with_the_next_call(world, worker, fake_runner):
    fake_runner.script(world.path, answers(http_headers={"set-cookie": "sid=leak; Path=/"}))
    schedule = world.create()
    for _ in range(2):
        world.finished_run(world.run_now(schedule)["id"])

    assert all("cookie" not in call.headers for call in fake_runner.calls[world.path])


def test_attempts_are_limited_and_the_last_failure_stays(world, worker, fake_runner):
    fake_runner.script(world.path, answers(500, headers=SOON, error="out\nof\x00order"))

    run = run_and_finish(world)

    assert run["status"] == "failed"
    assert run["attempts"] == 3
    assert run["http_status"] == 500
    assert run["error"] == "The extension answered 500: out of order"
    assert [call.headers["x-idempotency-key"] for call in fake_runner.calls[world.path]] == [
        f"{run['id']}:{number}" for number in range(3)
    ]


def test_a_wish_beyond_the_deadline_ends_the_run(world, worker, fake_runner):
    fake_runner.script(world.path, answers(503, headers={"retry-after": "3600"}))

    run = run_and_finish(world)

    assert run["status"] == "failed"
    assert run["attempts"] == 1


def test_a_second_run_of_a_schedule_in_flight_is_skipped_with_a_row(world, worker, fake_runner):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate), answers())
    schedule = world.create()
    first = world.run_now(schedule)
    fake_runner.wait_for_calls(world.path, 1)

    second = world.finished_run(world.run_now(schedule)["id"])
    gate.set()

    assert second["status"] == "skipped_overlap"
    assert second["attempts"] == 0
    assert world.finished_run(first["id"])["status"] == "succeeded"


def test_run_now_is_idempotent_under_its_key(world, worker, fake_runner):
    schedule = world.create()

    first = world.run_now(schedule, idempotency_key="order-7")
    again = world.run_now(schedule, idempotency_key="order-7")
    world.finished_run(first["id"])  # before the other, or either one may find its schedule occupied
    other = world.run_now(schedule, idempotency_key="order-8")

    assert first["id"] == again["id"] != other["id"]
    world.finished_run(other["id"])
    assert world.run_now(schedule, idempotency_key="order-7")["status"] == "succeeded"
    keys = {call.headers["x-idempotency-key"] for call in fake_runner.calls[world.path]}
    assert keys <= {f"{first['id']}:0", f"{other['id']}:0"}


def test_run_now_takes_a_payload_override_and_works_on_a_disabled_schedule(world, worker, fake_runner):
    schedule = world.create(enabled=False, payload={"stored": True})

    world.finished_run(world.run_now(schedule, body={"payload": {"override": True}})["id"])
    world.finished_run(world.run_now(schedule)["id"])

    assert [call.payload for call in fake_runner.calls[world.path]] == [{"override": True}, {"stored": True}]


def test_run_now_is_refused_on_a_disabled_install(world):
    schedule = world.create()
    world.put_install(is_enabled=False)

    answer = world.run_now(schedule, expect=409)

    assert answer["code"] == "install_disabled"


def test_run_now_is_limited_per_minute(world):
    schedule = world.create()
    for _ in range(5):
        world.run_now(schedule)

    answer = world.run_now(schedule, expect=429)

    assert answer["code"] == "rate_limited"
    assert 1 <= answer["data"]["retry_after_seconds"] <= 60


def test_an_edit_takes_effect_with_the_next_run_and_without_the_engine(world, worker, fake_runner):
    schedule = world.create(payload={"n": 1})
    world.api("PATCH", f"schedules/{schedule['id']}", {"payload": {"n": 2}}, expect=200)

    world.finished_run(world.run_now(schedule)["id"])

    assert fake_runner.calls[world.path][0].payload == {"n": 2}


def test_nothing_private_is_in_temporal(world, worker, fake_runner, temporal_server):
    private = [f"private-{kind}-{uuid.uuid4().hex}" for kind in ("payload", "config", "secret", "answer", "error")]
    payload, config, secret, answer, error = private
    world.put_install(config={"token": config}, secret_envelope={"ciphertext": secret})
    fake_runner.script(
        world.path, answers(503, headers=SOON, error=error), answers(400, error=error, body={"said": answer})
    )
    schedule = world.create(payload={"key": payload})
    run = world.finished_run(world.run_now(schedule)["id"])
    assert run["status"] == "failed"
    assert error in run["error"]

    async def read_everything():
        client = await Client.connect(temporal_server)
        prefix = f"extsched:{world.install_id}:{schedule['id']}"
        handle = client.get_schedule_handle(prefix)
        texts = [str((await handle.describe()).raw_description)]
        workflow = client.get_workflow_handle(run["workflow_id"], run_id=run["workflow_run_id"])
        texts.append(str((await workflow.describe()).raw_description))
        events = [event async for event in workflow.fetch_history_events()]
        texts += [event.SerializeToString().decode("latin-1") + str(event) for event in events]
        return texts

    texts = asyncio.run(read_everything())
    assert len(texts) > 8
    assert any("run_attempt" in text for text in texts)
    for text in texts:
        for word in private:
            assert word not in text
