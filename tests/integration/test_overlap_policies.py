"""What becomes of a run that is due while another one of its schedule is in flight, policy by policy, for real."""

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from schedules import ledger
from schedules.models import RunStatus, ScheduleRun
from tests.support.attempts import claim_slot
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def busy(world, fake_runner, gate, **policies):
    """A schedule with one run in flight, which ends when the gate opens."""
    fake_runner.script(world.path, hangs(gate), answers())
    schedule = world.create(attempt_timeout_seconds=None, **policies)
    first = world.run_now(schedule)
    fake_runner.wait_for_calls(world.path, 1)
    return schedule, first


def status_of(world, run):
    return world.api("GET", f"runs/{run['id']}", expect=200)["status"]


def test_skip_leaves_a_row_that_names_the_run_in_the_way(world, worker, fake_runner, gate):
    schedule, first = busy(world, fake_runner, gate)

    second = world.finished_run(world.run_now(schedule)["id"])

    assert (second["status"], second["blocked_by"]) == ("skipped_overlap", first["id"])
    assert status_of(world, first) == "running"


def test_queue_waits_for_the_running_one(world, worker, fake_runner, gate):
    schedule, first = busy(world, fake_runner, gate, overlap_policy="queue")
    second = world.run_now(schedule)
    eventually(lambda: world.api("GET", f"runs/{second['id']}")["blocked_by"] == first["id"])
    assert status_of(world, second) == "queued"

    gate.set()

    assert world.finished_run(second["id"])["status"] == "succeeded"
    first, second = (world.api("GET", f"runs/{run['id']}") for run in (first, second))
    assert first["status"] == "succeeded"
    assert second["started_at"] >= first["finished_at"]


def test_allow_runs_both(world, worker, fake_runner, gate):
    schedule, first = busy(world, fake_runner, gate, overlap_policy="allow")

    assert world.finished_run(world.run_now(schedule)["id"])["status"] == "succeeded"
    assert status_of(world, first) == "running"


def test_cancel_running_aborts_the_older_one_and_then_runs(world, worker, fake_runner, gate):
    schedule, first = busy(world, fake_runner, gate, overlap_policy="cancel_running")

    second = world.finished_run(world.run_now(schedule)["id"])

    first = world.api("GET", f"runs/{first['id']}")
    assert (first["status"], first["reason"]) == ("cancelled", "a newer run took its place")
    assert first["blocked_by"] == second["id"]
    assert second["status"] == "succeeded"
    assert second["started_at"] >= first["finished_at"]


@pytest.mark.usefixtures("nobody_works")
def test_a_newer_slot_takes_the_place_of_a_waiting_one(world):
    schedule = world.create(cron="*/5 * * * *", overlap_policy="queue")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    # Slots to come are as good as past ones here, and none of them is late.
    slots = [now + timedelta(minutes=5 * number - now.minute % 5) for number in (1, 2, 3)]
    assert [claim_slot(world, schedule, slot).status for slot in slots] == ["running", "queued", "queued"]

    running, older, newer = world.runs(schedule)

    assert (older.status, older.blocked_by) == ("superseded", newer.id)
    assert (newer.status, newer.blocked_by) == ("queued", running.id)
    waiting = ledger.next_in_line(tenant_id=world.tenant_id, schedule_id=uuid.UUID(schedule["id"]))
    assert waiting.id == newer.id


@pytest.mark.usefixtures("nobody_works")
def test_a_run_by_hand_keeps_its_place_in_line(world):
    schedule = world.create(cron="*/5 * * * *", overlap_policy="queue")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    slots = [now + timedelta(minutes=5 * number - now.minute % 5) for number in (1, 2)]
    claim_slot(world, schedule, slots[0])
    by_hand = world.run_now(schedule)
    claim_slot(world, schedule, slots[1])

    assert status_of(world, by_hand) == "queued"
    ScheduleRun.objects.filter(schedule_id=schedule["id"], status="running").update(
        status=RunStatus.SUCCEEDED, finished_at=now
    )
    waiting = ledger.next_in_line(tenant_id=world.tenant_id, schedule_id=uuid.UUID(schedule["id"]))
    assert str(waiting.id) == by_hand["id"]


@pytest.mark.usefixtures("nobody_works")
def test_an_older_slot_that_comes_late_does_not_join_behind_a_newer_one(world):
    schedule = world.create(cron="*/5 * * * *", overlap_policy="queue")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    first, older, newer = [now + timedelta(minutes=5 * number - now.minute % 5) for number in (1, 2, 3)]

    assert claim_slot(world, schedule, first).status == "running"
    assert claim_slot(world, schedule, newer).status == "queued"
    assert claim_slot(world, schedule, older).status == "superseded"
    assert [run.status for run in world.runs(schedule)] == ["running", "superseded", "queued"]
