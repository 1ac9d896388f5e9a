"""Retention, the counts that outlive the runs, and the numbers that are read from them."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext

from schedules import retention, stats
from schedules.models import RunCount, RunCountProgress, ScheduleRun, Tenant

NOW = datetime.now(UTC)
_APART = itertools.count()  # a slot has one run


@pytest.fixture(autouse=True)
def _nothing_is_counted(database):
    """Other tests have moved the mark, and the runs here are made up in the past."""
    RunCountProgress.objects.all().delete()


def past_run(world, schedule, *, days=0.01, status="succeeded", seconds=1.0, late=0.5, trigger="schedule"):
    finished = NOW - timedelta(days=days, milliseconds=next(_APART))
    started = finished - timedelta(seconds=seconds)
    ran = status in {"succeeded", "failed", "timed_out", "cancelled"}
    return ScheduleRun.objects.create(
        id=uuid.uuid4(),
        tenant_id=world.tenant_id,
        install_id=world.install_id,
        schedule_id=schedule["id"],
        trigger=trigger,
        slot=started - timedelta(seconds=late),
        status=status,
        started_at=started if ran else None,
        finished_at=finished,
    )


def counts(world, **scope):
    rows = RunCount.objects.filter(tenant_id=world.tenant_id, **scope)
    return {row.status: row.count for row in rows}


def test_each_run_is_counted_once_for_its_schedule_install_and_tenant(world):
    schedule, other = world.create(), world.create()
    for number in range(3):
        past_run(world, schedule, status="succeeded", days=0.01 + number / 1000)
    past_run(world, schedule, status="missed")
    past_run(world, other, status="failed")
    retention.count_finished()
    retention.count_finished()

    assert counts(world, schedule_id=schedule["id"]) == {"succeeded": 3, "missed": 1}
    assert counts(world, schedule_id=None, install_id=world.install_id) == {"succeeded": 3, "missed": 1, "failed": 1}
    assert counts(world, schedule_id=None, install_id=None) == {"succeeded": 3, "missed": 1, "failed": 1}
    assert ScheduleRun.objects.filter(tenant_id=world.tenant_id).count() == 5


def test_runs_are_kept_as_long_as_the_tenant_says_and_their_counts_longer(world, other_world):
    schedule, others = world.create(), other_world.create()
    Tenant.objects.filter(id=other_world.tenant_id).update(keep_succeeded_days=100, keep_other_days=5)
    for kept, of in ((schedule, world), (others, other_world)):
        for days in (1, 29, 31, 89, 91):
            past_run(of, kept, days=days, status="succeeded")
            past_run(of, kept, days=days, status="failed")
    retention.count_finished()

    # Other tests' tenants, whose runs may be old as well, are none of this one's business.
    own = ScheduleRun.objects.filter(tenant_id__in=[world.tenant_id, other_world.tenant_id])
    before = own.count()
    retention.purge(batch_size=2)
    deleted = before - own.count()

    def left(of):
        rows = ScheduleRun.objects.filter(tenant_id=of.tenant_id).values_list("status", "finished_at")
        return sorted((status, (NOW - finished).days) for status, finished in rows)

    assert deleted == 3 + 1 + 4
    assert left(world) == [("failed", days) for days in (1, 29, 31, 89)] + [("succeeded", days) for days in (1, 29)]
    assert left(other_world) == [("failed", 1)] + [("succeeded", days) for days in (1, 29, 31, 89, 91)]
    assert retention.purge() == 0


def test_sessions_that_are_over_and_yesterdays_wrong_passwords_are_not_kept(database):
    for name, moment in (("past", NOW - timedelta(days=1, minutes=5)), ("present", NOW + timedelta(hours=1))):
        Session.objects.create(session_key=f"{name}-{uuid.uuid4()}"[:40], session_data="x", expire_date=moment)
        attempt = AccessAttempt.objects.create(username=name, failures_since_start=1, user_agent=str(uuid.uuid4()))
        AccessAttempt.objects.filter(id=attempt.id).update(attempt_time=moment)

    retention.purge()

    assert not Session.objects.filter(session_key__startswith="past-").exists()
    assert Session.objects.filter(session_key__startswith="present-").exists()
    assert not AccessAttempt.objects.filter(username="past").exists()
    assert AccessAttempt.objects.filter(username="present").exists()


def test_the_numbers_of_a_schedule_an_install_and_a_tenant(world):
    schedule, other = world.create(), world.create()
    for seconds in (1, 2, 3, 4):
        past_run(world, schedule, seconds=seconds, late=0.2)
    past_run(world, schedule, status="timed_out", seconds=5)
    past_run(world, schedule, status="skipped_overlap")
    past_run(world, other, status="failed")

    found = world.api("GET", f"schedules/stats?schedule_id={schedule['id']}", expect=200)

    assert found["runs_by_status"]["succeeded"] == 4
    assert found["runs_by_status"]["skipped_overlap"] == 1
    assert found["success_rate"] == pytest.approx(0.8)
    assert found["duration_ms"]["p50"] == pytest.approx(3000)
    assert found["duration_ms"]["p95"] == pytest.approx(4800)
    assert found["lateness_ms"]["p50"] == pytest.approx(200, abs=1)
    assert found["next_slot_at"] == schedule["next_run_at"]
    assert world.api("GET", "schedules/stats", expect=200)["runs_by_status"]["failed"] == 1
    whole = stats.read_stats(tenant_id=world.tenant_id)
    assert (whole.by_status["succeeded"], whole.by_status["failed"]) == (4, 1)


def test_the_numbers_stay_the_same_when_runs_are_counted_and_purged(world):
    schedule = world.create()
    past_run(world, schedule)
    past_run(world, schedule, status="failed")
    before = world.api("GET", "schedules/stats", expect=200)
    retention.count_finished()
    counted = world.api("GET", "schedules/stats", expect=200)
    ScheduleRun.objects.filter(tenant_id=world.tenant_id).delete()
    after = world.api("GET", "schedules/stats", expect=200)

    assert before["runs_by_status"] == counted["runs_by_status"] == after["runs_by_status"]


def test_a_success_is_remembered_by_its_schedule(world, worker):
    schedule = world.create()
    run = world.finished_run(world.run_now(schedule)["id"])

    assert world.api("GET", f"schedules/stats?schedule_id={schedule['id']}")["last_success_at"] == run["finished_at"]


@pytest.mark.parametrize("query", ["days=0", "days=many", "days=999999", "schedule_id=7"])
def test_a_wrong_query_is_refused(world, query):
    assert world.api("GET", f"schedules/stats?{query}", expect=400)["fields"]


def test_another_schedules_numbers_are_unknown(world, other_world):
    foreign = other_world.create()

    world.api("GET", f"schedules/stats?schedule_id={foreign['id']}", expect=404)


def test_the_number_of_statements_does_not_depend_on_the_number_of_schedules(world):
    def statements():
        with CaptureQueriesContext(connection) as captured:
            stats.read_stats(tenant_id=world.tenant_id)
        return len(captured)

    world.create(sync=False)
    few = statements()
    for _ in range(5):
        past_run(world, world.create(sync=False))

    assert statements() == few


def test_a_run_that_is_written_by_a_long_transaction_is_counted_all_the_same(world, database_url):
    schedule = world.create()
    row = past_run(world, schedule)
    retention.count_finished()
    values = {field.column: field.value_from_object(row) for field in row._meta.concrete_fields}
    values |= {"id": uuid.uuid4(), "slot": row.slot - timedelta(hours=1), "attempt_log": "[]", "payload": None}
    with psycopg.connect(database_url) as slow:
        slow.execute("SELECT 1")
        # Whatever ends in there has ended after this moment, and shows up later than the next count.
        since = slow.execute("SELECT xact_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()[0]
        slow.execute(
            f"INSERT INTO schedules_schedulerun ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
            list((values | {"finished_at": since + timedelta(microseconds=1)}).values()),
        )
        retention.SETTLED_AFTER, kept = timedelta(0), retention.SETTLED_AFTER
        try:
            retention.count_finished()
            slow.commit()
            retention.count_finished()
        finally:
            retention.SETTLED_AFTER = kept

    assert counts(world, schedule_id=schedule["id"]) == {"succeeded": 2}


def test_a_tenant_says_how_long_its_runs_are_kept(world):
    assert world.tenant_api("GET", "tenant", expect=200)["keep_succeeded_days"] == 30

    changed = world.tenant_api("PATCH", "tenant", {"keep_succeeded_days": 7, "keep_other_days": 400}, expect=200)

    assert (changed["keep_succeeded_days"], changed["keep_other_days"]) == (7, 400)
    for wrong in ({"keep_succeeded_days": 0}, {"keep_other_days": "7"}, {"name": "Mine"}):
        world.tenant_api("PATCH", "tenant", wrong, expect=400)
    world.tenant_api("PATCH", "tenant", {"keep_other_days": 1}, role="viewer", expect=403)
    past_run(world, world.create())
    assert world.tenant_api("GET", "stats", expect=200)["runs_by_status"]["succeeded"] == 1
