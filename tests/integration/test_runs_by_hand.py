"""Cancel, replay and backfill, through the API and the real engine."""

import threading
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from schedules.models import AuditEvent, ScheduleRun
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def in_flight(world, fake_runner, gate, **changes):
    fake_runner.script(world.path, hangs(gate), answers())
    run = world.run_now(world.create(**changes))
    fake_runner.wait_for_calls(world.path, 1)
    return run


def test_cancel_aborts_the_call_and_frees_the_schedule(world, worker, fake_runner, gate):
    run = in_flight(world, fake_runner, gate)

    asked = world.api("POST", f"runs/{run['id']}/cancel", expect=202)
    again = world.api("POST", f"runs/{run['id']}/cancel", expect=202)

    assert asked["cancel_requested_at"] == again["cancel_requested_at"]
    ended = world.finished_run(run["id"])
    assert ended["status"] == "cancelled"
    assert ended["reason"].startswith("cancelled by API key")
    assert world.finished_run(world.run_now({"id": run["schedule_id"]})["id"])["status"] == "succeeded"
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, action="run.cancelled").count() == 1


def test_cancel_during_the_pause_between_two_attempts(world, worker, fake_runner):
    fake_runner.script(world.path, answers(503, headers={"retry-after": "120"}))
    run = world.run_now(world.create())
    eventually(lambda: world.api("GET", f"runs/{run['id']}")["attempt_log"])

    world.api("POST", f"runs/{run['id']}/cancel", expect=202)

    ended = world.finished_run(run["id"])
    assert ended["status"] == "cancelled"
    assert len(fake_runner.calls[world.path]) == 1


def test_cancel_of_a_waiting_run_is_immediate(world, worker, fake_runner, gate):
    first = in_flight(world, fake_runner, gate, overlap_policy="queue")
    second = world.run_now({"id": first["schedule_id"]})

    ended = world.api("POST", f"runs/{second['id']}/cancel", expect=202)

    assert ended["status"] == "cancelled"
    assert ended["finished_at"]
    gate.set()
    assert world.finished_run(first["id"])["status"] == "succeeded"
    assert len(fake_runner.calls[world.path]) == 1


def test_an_ended_run_cannot_be_cancelled(world, worker):
    run = world.finished_run(world.run_now(world.create())["id"])

    answer = world.api("POST", f"runs/{run['id']}/cancel", expect=409)

    assert answer["code"] == "conflict"
    assert "succeeded" in answer["message"]
    world.api("POST", f"runs/{uuid.uuid4()}/cancel", expect=404)


def test_replay_sends_the_recorded_payload_and_names_the_old_run(world, worker, fake_runner):
    schedule = world.create(payload={"n": 1})
    past = world.finished_run(world.run_now(schedule)["id"])
    world.change(schedule, payload={"n": 2})

    replayed = world.api("POST", f"runs/{past['id']}/replay", {}, expect=202, idempotency_key="again")
    same = world.api("POST", f"runs/{past['id']}/replay", {}, expect=202, idempotency_key="again")

    assert replayed["id"] == same["id"] != past["id"]
    run = world.finished_run(replayed["id"])
    assert (run["trigger"], run["replay_of"], run["status"]) == ("replay", past["id"], "succeeded")
    assert [call.payload for call in fake_runner.calls[world.path]] == [{"n": 1}, {"n": 1}]
    assert fake_runner.calls[world.path][1].context["trigger"] == "replay"


def test_replay_of_a_run_that_had_no_payload_sends_none(world, worker, fake_runner):
    schedule = world.create()
    past = world.finished_run(world.run_now(schedule)["id"])
    world.change(schedule, payload={"n": 2})

    world.finished_run(world.api("POST", f"runs/{past['id']}/replay", {}, expect=202)["id"])

    assert [call.payload for call in fake_runner.calls[world.path]] == [None, None]


def test_replay_is_refused_where_it_makes_no_sense(world, worker, fake_runner, gate):
    running = in_flight(world, fake_runner, gate)
    assert "not ended" in world.api("POST", f"runs/{running['id']}/replay", {}, expect=409)["message"]
    gate.set()
    world.finished_run(running["id"])
    world.api("DELETE", f"schedules/{running['schedule_id']}", expect=204)

    assert "deleted" in world.api("POST", f"runs/{running['id']}/replay", {}, expect=409)["message"]


def last_hour(hours=1):
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return {"start": (end - timedelta(hours=hours)).isoformat(), "end": end.isoformat()}


def test_backfill_runs_the_slots_of_a_past_range_one_at_a_time(world, worker, fake_runner):
    schedule = world.create(cron="*/15 * * * *", timezone="UTC", payload={"a": 1}, enabled=False)
    hour, address = last_hour(), f"schedules/{schedule['id']}/backfill"

    plan = world.api("POST", f"{address}/preview", hour, expect=200)
    assert (plan["count"], len(plan["slots"]), plan["already_succeeded"]) == (4, 4, 0)
    asked, again = (world.api("POST", address, hour, expect=202, idempotency_key="b") for _ in range(2))

    assert asked == again
    runs = [world.finished_run(run_id) for run_id in asked["run_ids"]]
    assert [run["status"] for run in runs] == ["succeeded"] * 4
    assert [run["slot"] for run in runs] == plan["slots"]
    assert {run["trigger"] for run in runs} == {"backfill"}
    for earlier, later in pairwise(runs):
        assert later["started_at"] >= earlier["finished_at"]
    assert [call.context["scheduled_for"] for call in fake_runner.calls[world.path]] == plan["slots"]
    assert world.api("POST", f"{address}/preview", hour, expect=200)["already_succeeded"] == 4


def test_a_backfill_beside_each_other(world, worker, fake_runner, gate):
    fake_runner.script(world.path, hangs(gate))
    schedule = world.create(cron="*/15 * * * *", timezone="UTC", enabled=False)

    body = last_hour() | {"one_at_a_time": False}
    asked = world.api("POST", f"schedules/{schedule['id']}/backfill", body, expect=202)

    fake_runner.wait_for_calls(world.path, 4)
    gate.set()
    assert {world.finished_run(run_id)["status"] for run_id in asked["run_ids"]} == {"succeeded"}


def test_a_run_by_hand_waits_for_a_backfilled_one_instead_of_being_skipped(world, worker, fake_runner, gate):
    fake_runner.script(world.path, hangs(gate), answers())
    schedule = world.create(cron="*/30 * * * *", timezone="UTC", enabled=False)
    asked = world.api("POST", f"schedules/{schedule['id']}/backfill", last_hour(), expect=202)
    fake_runner.wait_for_calls(world.path, 1)

    by_hand = world.run_now(schedule)
    eventually(lambda: world.api("GET", f"runs/{by_hand['id']}")["blocked_by"] == asked["run_ids"][0])
    gate.set()

    by_hand = world.finished_run(by_hand["id"])
    last = world.finished_run(asked["run_ids"][1])
    assert by_hand["status"] == last["status"] == "succeeded"
    assert last["started_at"] >= by_hand["finished_at"]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"start": "2026-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}, "end"),
        ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "start"),
        ({"start": "2026-01-01T00:01:00Z", "end": "2026-01-01T00:02:00Z"}, "start"),
        ({"start": "2025-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "end"),
        ({"start": "0001-01-01T00:00:00Z", "end": "0001-02-01T00:00:00Z"}, "start"),
        ({"start": "yesterday", "end": "2026-01-01T00:00:00Z"}, "start"),
        ({"start": "2026-01-01T00:00:00Z"}, "end"),
    ],
)
def test_a_range_that_cannot_be_backfilled_is_refused(world, body, member):
    schedule = world.create(cron="*/15 * * * *", timezone="UTC", enabled=False)

    for path in ("backfill", "backfill/preview"):
        assert member in world.api("POST", f"schedules/{schedule['id']}/{path}", body, expect=400)["fields"]
    assert not ScheduleRun.objects.filter(schedule_id=schedule["id"]).exists()


def test_the_same_key_with_another_payload_is_a_conflict(world):
    schedule = world.create()
    world.run_now(schedule, body={"payload": {"a": 1}}, idempotency_key="k")
    world.run_now(schedule, body={"payload": {"a": 1}}, idempotency_key="k")

    world.run_now(schedule, body={"payload": {"a": 2}}, idempotency_key="k", expect=409)
    world.run_now(schedule, idempotency_key="k", expect=409)


def test_replay_keeps_a_payload_that_was_given_and_never_sent(world, worker, fake_runner, gate):
    first = in_flight(world, fake_runner, gate)
    skipped = world.finished_run(world.run_now({"id": first["schedule_id"]}, body={"payload": {"mine": 1}})["id"])
    assert skipped["status"] == "skipped_overlap"
    gate.set()
    world.finished_run(first["id"])

    world.finished_run(world.api("POST", f"runs/{skipped['id']}/replay", {}, expect=202)["id"])

    assert fake_runner.calls[world.path][-1].payload == {"mine": 1}


def test_a_backfill_key_stands_for_one_range(world):
    schedule = world.create(cron="*/15 * * * *", timezone="UTC")
    address = f"schedules/{schedule['id']}/backfill"
    world.api("POST", address, last_hour(), expect=202, idempotency_key="b")

    answer = world.api("POST", address, last_hour(hours=2), expect=409, idempotency_key="b")

    assert "another body" in answer["message"]
    assert answer["code"] == "conflict"
