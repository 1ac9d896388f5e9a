"""What the sweep repairs, and what cannot stop it."""

import asyncio
import subprocess
import threading
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from temporalio.client import Client

from scheduler_project import embedded
from schedules import background, convergence, ledger, sweep, temporal
from schedules.background import PushOutcome
from schedules.models import RunStatus, Schedule, ScheduleRun
from tests.support.commands import reconcile
from tests.support.expressions import DAILY
from tests.support.fake_runner import hangs
from tests.support.waiting import eventually


def dirty(schedule):
    Schedule.objects.filter(id=schedule["id"]).update(synced_generation=0)


def is_synced(schedule):
    return Schedule.objects.get(id=schedule["id"]).sync_state == "synced"


def terminate(address, workflow_id):
    command = [embedded.temporal_executable(), "workflow", "terminate", "--address", address, "-w", workflow_id]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def test_what_somebody_waits_for_goes_before_mirrors_that_were_asked_for_earlier(database):
    begun, may_end = [], threading.Event()

    def work(name):
        def do():
            begun.append(name)
            assert may_end.wait(20)
            return PushOutcome.NOTHING

        return do

    for number in range(background.PUSH_THREADS):
        background.do_soon(work("busy"), key=("busy", number))
    eventually(lambda: len(begun) == background.PUSH_THREADS)
    for number in range(3):
        background.do_soon(work("mirror"), key=("mirror", number), patient=True)
    background.do_soon(work("start"), key="start")
    may_end.set()
    background.finish_background_work(timeout_seconds=20)

    assert begun[background.PUSH_THREADS :] == ["start", "mirror", "mirror", "mirror"]


def test_a_mirror_that_somebody_holds_does_not_keep_the_others_waiting(world, database_url):
    held, free = world.create(), world.create()
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"mirror:{held['id']}"])
        dirty(held)
        dirty(free)

        report = sweep.converge_unsynced()

        assert report.of(PushOutcome.BUSY) >= 1
        assert is_synced(free)
        assert not is_synced(held)
    eventually(lambda: sweep.converge_unsynced() and is_synced(held))


def test_a_row_that_cannot_be_compiled_does_not_stop_the_pass(world):
    broken, fine = world.create(), world.create()
    Schedule.objects.filter(id=broken["id"]).update(
        cron="nonsense", synced_generation=0, changed_at="2020-01-01T00:00Z"
    )
    dirty(fine)

    report = sweep.converge_unsynced()

    assert report.of(PushOutcome.FAILED) >= 1
    assert is_synced(fine)
    Schedule.objects.filter(id=broken["id"]).update(cron=DAILY)


def test_mirrors_are_renewed_long_before_their_calendars_end_and_after_new_zone_rules(world):
    ending, old = world.create(), world.create()
    Schedule.objects.filter(id=ending["id"]).update(exact_until=datetime.now(UTC) + timedelta(days=18 * 30))
    Schedule.objects.filter(id=old["id"]).update(calendar_rules="1/tzdata-2020.1")

    sweep.converge_unsynced()

    for schedule in (ending, old):
        row = Schedule.objects.get(id=schedule["id"])
        assert row.exact_until - datetime.now(UTC) > timedelta(days=24 * 30)
        assert row.calendar_rules != "1/tzdata-2020.1"


def in_flight(world, fake_runner):
    fake_runner.script(world.path, hangs())
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)
    return world.api("GET", f"runs/{run['id']}")


def test_a_run_whose_workflow_was_terminated_ends_and_frees_its_schedule(world, worker, fake_runner, temporal_server):
    run = in_flight(world, fake_runner)
    terminate(temporal_server, run["workflow_id"])
    ScheduleRun.objects.filter(id=run["id"]).update(started_at=datetime.now(UTC) - timedelta(minutes=2))

    report = sweep.converge_unsynced()

    assert report.of(PushOutcome.CLOSED) == 1
    ended = world.api("GET", f"runs/{run['id']}")
    assert ended["status"] == "cancelled"
    assert "terminated" in ended["reason"]
    fake_runner.scripts.pop(world.path)
    again = world.run_now({"id": run["schedule_id"]})
    assert world.finished_run(again["id"])["status"] == "succeeded"


def test_a_run_that_is_worked_on_is_left_alone(world, worker, fake_runner):
    run = in_flight(world, fake_runner)
    ScheduleRun.objects.filter(id=run["id"]).update(started_at=datetime.now(UTC) - timedelta(minutes=2))

    sweep.converge_unsynced()

    assert world.api("GET", f"runs/{run['id']}")["status"] == "running"


def test_a_queued_run_whose_workflow_was_terminated_ends_too(world, temporal_server, settings):
    settings.TEMPORAL_TASK_QUEUE = f"nobody-{uuid.uuid4()}"
    schedule = world.create()
    run = world.run_now(schedule)
    workflow_id = f"extsched:{world.install_id}:{schedule['id']}:manual:{run['id']}"
    eventually(lambda: temporal.workflow_is_open(workflow_id=workflow_id, run_id=None))
    terminate(temporal_server, workflow_id)
    ScheduleRun.objects.filter(id=run["id"]).update(created_at=datetime.now(UTC) - timedelta(minutes=1))

    sweep.converge_unsynced()

    assert world.api("GET", f"runs/{run['id']}")["status"] == "cancelled"


def test_reconcile_does_not_call_a_queued_run_done(world, temporal_proxy):
    schedule = world.create()
    temporal_proxy.down()
    try:
        run = world.run_now(schedule)
        background.finish_background_work(timeout_seconds=30)
        ScheduleRun.objects.filter(id=run["id"]).update(created_at=datetime.now(UTC) - timedelta(minutes=1))
        status, said = reconcile()
    finally:
        temporal_proxy.up()

    assert status == 1
    assert "Temporal does not answer" in said
    assert world.api("GET", f"runs/{run['id']}")["status"] == "queued"
    ScheduleRun.objects.filter(id=run["id"]).delete()


def test_a_slot_that_ends_before_its_first_claim_still_gets_its_row(world):
    schedule = world.create()
    run_id, slot = uuid.uuid4(), datetime.now(UTC).replace(second=0, microsecond=0)
    close = {
        "tenant_id": world.tenant_id,
        "run_id": run_id,
        "status": RunStatus.CANCELLED,
        "reason": "cancelled while it ran",
        "slot_of": (world.install_id, uuid.UUID(schedule["id"]), slot),
    }

    assert ledger.close_run(**close).status == "cancelled"
    assert ledger.close_run(**close | {"status": RunStatus.FAILED}).status == "cancelled"

    run = world.api("GET", f"runs/{run_id}", expect=200)
    assert (run["status"], run["trigger"], run["reason"]) == ("cancelled", "schedule", "cancelled while it ran")


def test_closing_a_run_that_nobody_knows_writes_nothing(world):
    assert ledger.close_run(tenant_id=world.tenant_id, run_id=uuid.uuid4(), status=RunStatus.FAILED, reason="x") is None


@pytest.mark.parametrize("status", ["succeeded", "failed", "missed"])
def test_a_run_that_has_ended_keeps_its_state_whoever_comes_late(world, status):
    schedule = world.create()
    run = ScheduleRun.objects.create(
        id=uuid.uuid4(),
        tenant_id=world.tenant_id,
        install_id=world.install_id,
        schedule_id=schedule["id"],
        trigger="run_now",
        slot=datetime.now(UTC),
        status=status,
        finished_at=datetime.now(UTC),
    )

    assert convergence.start(run) is PushOutcome.NOTHING
    for while_status in (None, RunStatus(status), RunStatus.RUNNING):
        ended = ledger.close_run(
            tenant_id=world.tenant_id,
            run_id=run.id,
            status=RunStatus.CANCELLED,
            reason="late",
            while_status=while_status,
        )
        assert ended.status == status
    assert world.api("GET", f"runs/{run.id}")["status"] == status


def test_the_minutes_pass_notices_a_hold_and_its_end(world, temporal_server):
    schedule = world.synced(world.create())

    def pause(note):
        async def call():
            client = await Client.connect(temporal_server)
            handle = client.get_schedule_handle(f"extsched:{world.install_id}:{schedule['id']}")
            await (handle.pause(note=note) if note else handle.unpause())

        asyncio.run(call())

    def held(note):
        sweep.converge_unsynced()
        shown = world.api("GET", f"schedules/{schedule['id']}")["held"]
        assert (shown and shown["note"]) == note
        return True

    pause("the vendor asked")
    eventually(lambda: held("the vendor asked"))  # lists lag behind writes
    pause("and again")
    eventually(lambda: held("and again"))
    pause(None)
    eventually(lambda: held(None))
