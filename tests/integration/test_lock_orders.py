"""Who ends things and who runs or records them at the same moment wait for each other, and never both."""

import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from schedules import attempts, audit, installs, ledger, services, sweep
from schedules.models import RunStatus, Schedule, ScheduleRun
from tests.support.attempts import claim, claim_slot, record
from tests.support.expressions import DAILY
from tests.support.waiting import eventually

ACTOR = audit.Actor(audit.Source.SYSTEM, "tests")


class Beside:
    """Work in a thread of its own; its failure is raised by `result`."""

    def __init__(self, work, *, has_come=None):
        """Return once it ``has_come`` as far as it is to; that is its end, or a lock that somebody holds."""
        self.work, self.value, self.error = work, None, None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        has_come = has_come or somebody_waits
        eventually(lambda: not self.thread.is_alive() or has_come())

    def _run(self):
        try:
            self.value = self.work()
        except Exception as error:
            self.error = error
            raise
        finally:
            connection.close()

    def result(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def somebody_waits():
    with connection.cursor() as cursor:
        # Within a transaction the server would go on showing what it showed at the first look.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return cursor.fetchone()[0] > 0


@contextmanager
def beside(statement, work):
    """Start the work just before the first statement that begins so; yields what holds it."""
    started = []

    def before(execute, sql, params, many, context):
        if sql.lstrip().startswith(statement) and not started:
            started.append(None)
            started[0] = Beside(work)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(before):
        yield started
    assert started, f"no statement began with {statement}"


def test_a_schedule_is_deleted_while_a_run_in_its_line_is_claimed(world):
    schedule = world.create()
    run = world.queued_run(schedule)

    with beside('DELETE FROM "schedules_schedule"', lambda: claim(world, schedule, run_id=run.id)) as started:
        services.delete_schedule(
            tenant_id=world.tenant_id,
            install_id=world.install_id,
            schedule_id=uuid.UUID(schedule["id"]),
            actor=ACTOR,
        )

    assert started[0].result().invocation is None
    assert ScheduleRun.objects.get(id=run.id).status == "cancelled"


@pytest.mark.parametrize("what", ["install", "tenant"])
def test_an_install_or_a_tenant_goes_while_an_attempt_is_claimed(world, what):
    schedule = world.create()
    claim(world, schedule)
    run = ScheduleRun.objects.get(schedule_id=schedule["id"])

    with beside('DELETE FROM "schedules_schedule"', lambda: claim(world, schedule, run_id=run.id)) as started:
        if what == "install":
            installs.delete_install(tenant_id=world.tenant_id, registry_id=world.registry_id, actor=ACTOR)
        else:
            assert installs.delete_tenant(tenant_id=world.tenant_id, actor=ACTOR)

    assert started[0].result().invocation is None


def test_an_install_goes_while_a_run_is_recorded(world):
    schedule = world.create()
    taken = claim(world, schedule)
    with transaction.atomic():
        list(Schedule.objects.select_for_update(no_key=True).filter(id=schedule["id"]))
        uninstall = Beside(
            lambda: installs.delete_install(tenant_id=world.tenant_id, registry_id=world.registry_id, actor=ACTOR)
        )
        recorded = Beside(lambda: record(taken))

    uninstall.result()
    recorded.result()


@pytest.mark.parametrize("outcome", ["recorded", "closed"])
def test_slots_are_settled_while_one_of_them_is_claimed_and_ends(world, outcome):
    slot = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    schedule = world.create(cron=f"{slot.minute} {slot.hour} * * *", timezone="UTC")
    world.owe_since(schedule, slot - timedelta(minutes=1))

    def claim_and_end():
        taken = claim_slot(world, schedule, slot)
        if outcome == "recorded":
            return record(taken).status
        return attempts.close_run(
            tenant_id=world.tenant_id,
            run_id=taken.invocation.invocation_id,
            status=RunStatus.CANCELLED,
            reason="its workflow was terminated",
        ).status

    with beside('INSERT INTO "schedules_schedulerun"', claim_and_end) as started:
        sweep.settle_due()

    assert started[0].result() == {"recorded": "succeeded", "closed": "cancelled"}[outcome]
    assert Schedule.objects.get(id=schedule["id"]).accounted_until > slot
    assert ScheduleRun.objects.get(schedule_id=schedule["id"], slot=slot).status == started[0].value


def test_a_run_that_begins_while_it_is_ended_is_ended_with_its_schedule_locked_first(world):
    schedule = world.create()
    run = world.queued_run(schedule)
    claimed, may_commit = threading.Event(), threading.Event()

    def claim_slowly():
        with transaction.atomic():
            claim(world, schedule, run_id=run.id)
            claimed.set()
            assert may_commit.wait(20)

    def close():
        return ledger.close_run(
            tenant_id=world.tenant_id, run_id=run.id, status=RunStatus.CANCELLED, reason="an operator ended it"
        )

    with transaction.atomic():
        list(Schedule.objects.select_for_update(no_key=True).filter(id=schedule["id"]))
        claiming = Beside(claim_slowly, has_come=claimed.is_set)
        closing = Beside(close)  # up to the run's lock, which the claim holds
        may_commit.set()
        claiming.result()
        eventually(somebody_waits)  # and now for the schedule's
        again = ScheduleRun(id=run.id, tenant_id=run.tenant_id, install_id=run.install_id, schedule_id=run.schedule_id)
        again.trigger, again.slot, again.status = run.trigger, run.slot, RunStatus.QUEUED
        ScheduleRun.objects.bulk_create([again], ignore_conflicts=True)  # as who settles slots does

    ended = closing.result()
    assert (ended.status, ended.failures) == ("cancelled", 0)
    assert ScheduleRun.objects.get(id=run.id).finished_at is not None


def test_an_install_goes_once_a_run_that_is_being_written_may_be_asked_to_stop(world):
    schedule = world.create()
    claim(world, schedule)
    run = ScheduleRun.objects.get(schedule_id=schedule["id"])
    with transaction.atomic():
        ScheduleRun.objects.select_for_update().get(id=run.id)  # e.g. an attempt that another one follows
        uninstall = Beside(
            lambda: installs.delete_install(tenant_id=world.tenant_id, registry_id=world.registry_id, actor=ACTOR)
        )

    uninstall.result()
    assert ScheduleRun.objects.get(id=run.id).cancel_requested_at is not None


def test_a_tenant_goes_while_a_schedule_is_created(world):
    with transaction.atomic():
        services.create_schedule(
            tenant_id=world.tenant_id,
            install_id=world.install_id,
            changes={"endpoint": f"POST {world.path}", "cron": DAILY},
            actor=ACTOR,
        )
        removal = Beside(lambda: installs.delete_tenant(tenant_id=world.tenant_id, actor=ACTOR))

    assert removal.result()
    assert not Schedule.objects.filter(tenant_id=world.tenant_id).exists()
