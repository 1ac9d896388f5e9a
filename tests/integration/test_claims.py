"""Claiming a run and recording its attempts: what one statement each decides, without worker or engine."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
from django.db import connection
from django.test.utils import CaptureQueriesContext

from schedules import metrics
from schedules.models import Schedule, ScheduleRun
from schedules.runner import Answer, AttemptOutcome
from tests.support.attempts import claim, record
from workflows import names


def test_a_successful_run_costs_two_statements(world):
    schedule = world.create()

    with CaptureQueriesContext(
        connection,
    ) as statements:
        taken = claim(world, schedule)
        record(taken)

    assert len(statements) == 2


def due_at(world, slot, **changes):
    """A schedule that is due at the slot and once a day, and was so before the slot."""
    schedule = world.create(cron=f"{slot.minute} {slot.hour} * * *", timezone="UTC", **changes)
    world.owe_since(schedule, slot - timedelta(minutes=2))
    return schedule


def this_minute(**offset):
    return (datetime.now(UTC) - timedelta(**offset)).replace(second=0, microsecond=0)


def test_a_late_slot_is_recorded_as_missed(world):
    slot = this_minute(minutes=6)
    schedule = due_at(world, slot)

    taken = claim(world, schedule, slot=slot, trigger="schedule")

    assert taken.status == "missed"
    assert taken.invocation is None
    assert ScheduleRun.objects.get(schedule_id=schedule["id"]).finished_at is not None


def test_a_slot_of_a_disabled_schedule_or_install_is_recorded_as_skipped(world):
    slot = this_minute()
    schedule, other = due_at(world, slot), due_at(world, slot)
    world.change(schedule, enabled=False)
    assert claim(world, schedule, slot=slot, trigger="schedule").status == "skipped_disabled"

    world.put_install(is_enabled=False)
    taken = claim(world, other, slot=slot, trigger="schedule")
    assert (taken.status, taken.reason) == ("skipped_disabled", "the extension was disabled")


def test_a_fire_that_is_no_slot_leaves_no_run_and_is_counted(world):
    slot = this_minute()
    schedule = due_at(world, slot)
    before = metrics.OFF_GRID_FIRES._value.get()

    off = claim(world, schedule, slot=slot - timedelta(minutes=1), trigger="schedule")

    assert (off.status, off.reason) == ("", "the schedule is not due at this time")
    assert not ScheduleRun.objects.filter(schedule_id=schedule["id"]).exists()
    assert metrics.OFF_GRID_FIRES._value.get() == before + 1
    assert claim(world, schedule, slot=slot, trigger="schedule").status == "running"


def test_the_claim_goes_by_the_schedule_as_it_is_and_not_as_it_was_known(world):
    slot = this_minute()
    schedule = due_at(world, slot)
    assert claim(world, schedule, slot=slot - timedelta(minutes=1), trigger="schedule").status == ""

    later = slot + timedelta(minutes=30)
    world.change(schedule, cron=f"{later.minute} {later.hour} * * *")

    assert claim(world, schedule, slot=slot + timedelta(days=1), trigger="schedule").status == ""
    assert claim(world, schedule, slot=later, trigger="schedule").status == "running"


def test_a_scheduled_run_costs_two_statements_once_its_schedule_is_known(world):
    slot = this_minute()
    schedule = due_at(world, slot)
    claim(world, schedule, slot=slot - timedelta(minutes=1), trigger="schedule")

    with CaptureQueriesContext(connection) as statements:
        record(claim(world, schedule, slot=slot, trigger="schedule"))

    assert len(statements) == 2


def test_a_run_goes_on_after_an_edit_took_its_slot_off_the_grid(world):
    slot = this_minute()
    schedule = due_at(world, slot)
    identity = names.slot_invocation_id(schedule_id=schedule["id"], slot=slot)
    claim(world, schedule, slot=slot, trigger="schedule", run_id=identity)
    world.change(schedule, cron=f"{(slot.minute + 30) % 60} {slot.hour} * * *")

    again = claim(world, schedule, slot=slot, trigger="schedule", run_id=identity)

    assert again.invocation.attempt == 2


def test_a_dead_attempt_is_taken_over_as_it_began(world):
    schedule = world.create(payload={"n": 1})
    invocation_id = uuid.uuid4()
    first = claim(world, schedule, run_id=invocation_id)
    world.publish("2.0.0", content_hash="b" * 64)
    world.put_install(version="2.0.0")
    world.api("PATCH", f"schedules/{schedule['id']}", {"payload": {"n": 2}}, expect=200)

    second = claim(world, schedule, run_id=invocation_id)

    assert second.invocation.attempt == 2
    assert second.invocation.idempotency_key == first.invocation.idempotency_key
    assert second.invocation.payload == {"n": 1}
    assert second.invocation.version_id == first.invocation.version_id
    assert second.elapsed_seconds >= first.elapsed_seconds


def test_the_late_answer_of_an_attempt_that_was_taken_over_writes_nothing(world):
    schedule = world.create()
    invocation_id = uuid.uuid4()
    first = claim(world, schedule, run_id=invocation_id)
    second = claim(world, schedule, run_id=invocation_id)

    assert record(first).retry_in_seconds is not None
    assert ScheduleRun.objects.get(id=invocation_id).status == "running"
    assert record(second).status == "succeeded"
    assert record(second).status == "succeeded"
    assert len(ScheduleRun.objects.get(id=invocation_id).attempt_log) == 1


def test_a_failure_recorded_twice_counts_once(world):
    schedule = world.create()
    taken = claim(world, schedule)
    busy = Answer(
        outcome=AttemptOutcome.FAILED, retryable=True, http_status=200, envelope_status=503, retry_after_seconds=120
    )

    first, again = record(taken, busy), record(taken, busy)

    assert first == again
    assert again.retry_in_seconds == 120
    run = ScheduleRun.objects.get(id=taken.invocation.invocation_id)
    assert (run.failed_envelopes, len(run.attempt_log)) == (1, 1)


def test_a_run_whose_attempts_leave_no_trace_is_given_up(world):
    schedule, invocation_id = world.create(), uuid.uuid4()
    for _ in range(10):
        assert claim(world, schedule, run_id=invocation_id).invocation is not None

    assert claim(world, schedule, run_id=invocation_id).status == "failed"
    assert claim(world, schedule).status == "running"


def test_a_finished_run_is_not_run_again(world):
    schedule = world.create()
    invocation_id = uuid.uuid4()
    record(claim(world, schedule, run_id=invocation_id))

    again = claim(world, schedule, run_id=invocation_id)

    assert again.status == "succeeded"
    assert again.invocation is None


def test_a_run_of_a_deleted_schedule_ends_and_stays_readable(world):
    schedule = world.create()
    assert claim(world, {"id": uuid.uuid4()}).status == ""
    run_id = uuid.uuid4()
    ScheduleRun.objects.create(
        id=run_id,
        tenant_id=world.tenant_id,
        install_id=world.install_id,
        schedule_id=schedule["id"],
        trigger="run_now",
        slot=datetime.now(UTC),
        status="queued",
    )
    world.api("DELETE", f"schedules/{schedule['id']}", expect=204)

    assert claim(world, schedule, trigger="run_now", run_id=run_id).status == "cancelled"
    run = world.api("GET", f"runs/{run_id}", expect=200)
    assert run["reason"] == "the schedule was deleted"


def test_runs_are_listed_newest_first_and_page_by_page(world):
    schedule = world.create()
    start = datetime.now(UTC).replace(microsecond=0)
    for number in range(5):
        record(claim(world, schedule, slot=start + timedelta(seconds=number)))

    first = world.api("GET", f"schedules/{schedule['id']}/runs?page_size=3", expect=200)
    assert len(first["results"]) == 3
    assert first["previous"] is None
    second = world.client.get(first["next"], headers={"authorization": f"Api-Key {world.key()}"}).json()
    slots = [run["slot"] for run in first["results"] + second["results"]]
    assert slots == sorted(slots, reverse=True)
    assert len(set(slots)) == 5


def test_an_error_text_never_breaks_the_record(world):
    schedule = world.create()
    answer = Answer(
        outcome=AttemptOutcome.FAILED, http_status=200, envelope_status=404, error="x" * 1024, response_bytes=1
    )

    assert record(claim(world, schedule), answer).status == "failed"
    assert Schedule.objects.get(id=schedule["id"]).last_error == "x" * 1024
    assert json.dumps(world.api("GET", f"schedules/{schedule['id']}"))


def test_a_claim_during_an_upgrade_goes_by_what_was_before_it_and_waits_for_nothing(world, database_url):
    schedule = world.create()
    world.publish("2.0.0", content_hash="b" * 64)
    with psycopg.connect(database_url) as upgrade:
        upgrade.execute("SELECT id FROM schedules_extensioninstall WHERE id = %s FOR UPDATE", [world.install_id])
        upgrade.execute("SELECT id FROM schedules_schedule WHERE id = %s FOR NO KEY UPDATE", [schedule["id"]])
        upgrade.execute(
            "UPDATE schedules_schedule SET endpoint_id = e.id FROM schedules_apiendpoint e "
            "JOIN schedules_extensionversion v ON v.id = e.version_id "
            "WHERE schedules_schedule.id = %s AND v.version = '2.0.0' AND v.extension_id = %s AND e.path = %s",
            [schedule["id"], world.registry_id, world.path],
        )
        upgrade.execute(
            "UPDATE schedules_extensioninstall SET version_id = (SELECT id FROM schedules_extensionversion "
            "WHERE version = '2.0.0' AND extension_id = %s) WHERE id = %s",
            [world.registry_id, world.install_id],
        )
        before = claim(world, schedule)
        upgrade.commit()
    record(before)

    after = claim(world, schedule)

    assert before.invocation.content_hash == "a" * 64
    assert after.invocation.content_hash == "b" * 64
    assert Schedule.objects.get(id=schedule["id"]).enabled


def attempt_earlier(world, schedule, *, started, answer):
    """A run that started some time ago, failed once, and is up for its next attempt."""
    invocation_id = uuid.uuid4()
    record(claim(world, schedule, run_id=invocation_id), answer)
    ScheduleRun.objects.filter(id=invocation_id).update(started_at=datetime.now(UTC) - started)
    return claim(world, schedule, run_id=invocation_id)


BUSY = Answer(outcome=AttemptOutcome.FAILED, retryable=True, http_status=200, envelope_status=503)


def test_no_attempt_begins_after_the_deadline(world):
    schedule = world.create(run_deadline_seconds=600)

    late = attempt_earlier(world, schedule, started=timedelta(minutes=11), answer=BUSY)

    assert (late.status, late.invocation) == ("failed", None)
    assert "deadline" in late.reason


def test_no_attempt_begins_after_the_next_slot(world):
    frequent, allowed = world.create(cron="*/5 * * * *"), world.create(cron="*/5 * * * *", overlap_policy="allow")

    assert attempt_earlier(world, frequent, started=timedelta(minutes=6), answer=BUSY).status == "failed"
    assert attempt_earlier(world, allowed, started=timedelta(minutes=6), answer=BUSY).invocation is not None


def test_an_attempt_whose_outcome_nobody_knows_is_repeated_whenever(world):
    schedule, invocation_id = world.create(), uuid.uuid4()
    claim(world, schedule, run_id=invocation_id)
    ScheduleRun.objects.filter(id=invocation_id).update(started_at=datetime.now(UTC) - timedelta(hours=3))

    assert claim(world, schedule, run_id=invocation_id).invocation.attempt == 2


def test_runs_that_began_while_overlap_was_allowed_keep_later_ones_out(world):
    schedule = world.create(overlap_policy="allow")
    claim(world, schedule)
    world.api("PATCH", f"schedules/{schedule['id']}", {"overlap_policy": "skip"}, expect=200)

    assert claim(world, schedule).status == "skipped_overlap"
