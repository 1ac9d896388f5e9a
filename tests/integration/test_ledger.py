"""Every due slot of an enabled schedule has exactly one row, whatever the engine delivered and whoever edited it."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from scheduler_project import embedded
from schedules import cron, ledger, sweep
from schedules.models import Schedule, ScheduleRun
from tests.support.attempts import claim_slot
from tests.support.waiting import eventually
from workflows import names

EVERY_FIVE = "*/5 * * * *"


def ago(**offset):
    return datetime.now(UTC) - timedelta(**offset)


def neglected(world, *, since, **changes):
    """A schedule that has been enabled for a while and that nobody has looked after."""
    schedule = world.create(cron=EVERY_FIVE, timezone="UTC", **changes)
    world.owe_since(schedule, since)
    return schedule


def due(since, until=None):
    expression, zone = cron.parse(EVERY_FIVE), cron.parse_zone("UTC")
    return list(cron.slots_after(expression, zone, after=since, until=until or datetime.now(UTC)))


def slots_due_by(act, *, since):
    """What may be accounted for by an act: the slots until it began, or until it was over where one came meanwhile."""
    begun = datetime.now(UTC)
    act()
    return due(since, begun), due(since, datetime.now(UTC))


def statuses(world, schedule):
    return [run.status for run in world.runs(schedule, trigger="schedule")]


@pytest.mark.usefixtures("nobody_works")
def test_the_number_of_rows_is_the_number_of_slots(world):
    since = ago(hours=3)
    schedule = neglected(world, since=since)

    settled = sweep.settle_due()

    settled_until = Schedule.objects.get(id=schedule["id"]).accounted_until
    expected = due(since, settled_until)
    assert [run.slot for run in world.runs(schedule)] == expected
    assert settled >= len(expected)
    late = [run for run in world.runs(schedule) if run.status == "missed"]
    assert len(late) >= len(expected) - 1
    assert all(run.finished_at and "5 minutes late" in run.reason for run in late)
    sweep.settle_due()
    assert len(world.runs(schedule)) == len(expected)


@pytest.mark.usefixtures("nobody_works")
def test_slots_of_a_time_when_the_schedule_was_disabled_are_nobodys(world):
    schedule = world.create(cron=EVERY_FIVE, timezone="UTC", enabled=False)
    world.owe_since(schedule, ago(hours=3))
    world.change(schedule, enabled=True)

    sweep.settle_due()

    assert world.runs(schedule) == []
    slot = due(ago(minutes=30))[0]
    assert claim_slot(world, schedule, slot).status == ""
    assert world.runs(schedule) == []


@pytest.mark.usefixtures("nobody_works")
@pytest.mark.parametrize("change", [{"enabled": False}, {"cron": "0 4 * * *"}, {"timezone": "Asia/Tokyo"}])
def test_an_edit_accounts_for_the_slots_before_it_by_the_rules_before_it(world, change):
    since = ago(minutes=42)
    schedule = neglected(world, since=since)

    path = f"schedules/{schedule['id']}"
    expected = slots_due_by(lambda: world.api("PATCH", path, change, expect=200), since=since)

    assert [run.slot for run in world.runs(schedule)] in expected
    assert statuses(world, schedule)[0] == "missed"


@pytest.mark.usefixtures("nobody_works")
def test_a_deletion_accounts_for_the_slots_before_it_and_leaves_none_waiting(world):
    since = ago(minutes=42)
    schedule = neglected(world, since=since, catch_up_policy="all")

    path = f"schedules/{schedule['id']}"
    expected = slots_due_by(lambda: world.api("DELETE", path, expect=204), since=since)

    assert [run.slot for run in world.runs(schedule)] in expected
    assert set(statuses(world, schedule)) == {"cancelled"}


@pytest.mark.usefixtures("nobody_works")
def test_disabling_the_install_accounts_for_the_slots_before_it(world):
    since = ago(minutes=42)
    schedule = neglected(world, since=since)

    expected = slots_due_by(lambda: world.put_install(is_enabled=False), since=since)

    assert [run.slot for run in world.runs(schedule)] in expected
    count = len(world.runs(schedule))
    world.owe_since(schedule, since)
    sweep.settle_due()
    world.put_install(is_enabled=True)
    sweep.settle_due()
    assert len(world.runs(schedule)) == count


def test_a_slot_that_comes_late_by_the_engine_is_judged_together_with_the_others(world):
    since = ago(minutes=42)
    schedule = neglected(world, since=since, catch_up_policy="latest")

    taken = claim_slot(world, schedule, due(since)[0])

    assert taken.status == "superseded"
    found = statuses(world, schedule)
    assert found.count("queued") == 1
    assert found[-1] == "queued"
    assert set(found[:-1]) == {"superseded"}
    newest = claim_slot(world, schedule, due(since)[-1])
    assert newest.status == "running"


def test_a_lost_slot_that_is_not_late_is_started(world, worker, fake_runner):
    slot = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    schedule = world.create(cron=f"{slot.minute} {slot.hour} * * *", timezone="UTC", payload={"made": "up"})
    world.owe_since(schedule, slot - timedelta(minutes=1))

    sweep.converge_unsynced()

    run = world.finished_run(names.slot_invocation_id(schedule_id=schedule["id"], slot=slot))
    assert (run["status"], run["trigger"], run["slot"]) == (
        "succeeded",
        "schedule",
        slot.isoformat().replace("+00:00", "Z"),
    )
    (call,) = fake_runner.calls[world.path]
    assert call.context["scheduled_for"] == run["slot"]
    assert call.context["trigger"] == "schedule"


@pytest.mark.usefixtures("nobody_works")
def test_what_an_operator_holds_is_not_started_behind_their_back(world, temporal_server):
    since = ago(minutes=42)
    schedule = neglected(world, since=since, catch_up_policy="all")
    mirror = f"extsched:{world.install_id}:{schedule['id']}"
    toggle = ["schedule", "toggle", "--pause", "--reason", "incident 7", "--schedule-id", mirror]
    command = [embedded.temporal_executable(), *toggle, "--address", temporal_server]
    subprocess.run(command, check=True, capture_output=True, timeout=30)

    sweep.settle_due()

    assert set(statuses(world, schedule)) == {"missed"}
    assert all("an operator held the schedule" in run.reason for run in world.runs(schedule))
    assert "incident 7" in world.runs(schedule)[0].reason


@pytest.mark.usefixtures("nobody_works")
def test_nothing_is_decided_while_nobody_can_say_whether_it_is_held(world, temporal_proxy):
    schedule = neglected(world, since=ago(minutes=42))
    temporal_proxy.down()
    try:
        sweep.settle_due()
        assert world.runs(schedule) == []
    finally:
        temporal_proxy.up()

    def settled():
        sweep.settle_due()
        return world.runs(schedule)

    assert eventually(settled)


def test_a_schedule_that_cannot_be_read_keeps_no_other_from_being_settled(world):
    broken, fine = neglected(world, since=ago(hours=2)), neglected(world, since=ago(hours=1))
    Schedule.objects.filter(id=broken["id"]).update(cron="nonsense")
    try:
        sweep.settle_due()
    finally:
        Schedule.objects.filter(id=broken["id"]).update(cron=EVERY_FIVE)

    assert world.runs(fine)
    assert not world.runs(broken)


def test_two_workflows_of_one_slot_run_it_once(world):
    slot = datetime.now(UTC).replace(second=0, microsecond=0)
    schedule = world.create(cron=f"{slot.minute} {slot.hour} * * *", timezone="UTC")
    world.owe_since(schedule, slot - timedelta(minutes=1))
    first = claim_slot(world, schedule, slot)
    assert first.invocation is not None

    second = claim_slot(world, schedule, slot, workflow_id="another workflow")

    assert (second.status, second.invocation) == ("running", None)
    assert ScheduleRun.objects.get(id=first.invocation.invocation_id).attempts == 1


@pytest.mark.parametrize(
    ("policy", "expected"), [("none", {"missed"}), ("latest", {"superseded"}), ("all", {"missed", "queued"})]
)
def test_a_long_outage_is_accounted_for_in_short_transactions(world, policy, expected):
    since = ago(days=3)
    schedule = neglected(world, since=since, catch_up_policy=policy)
    row = Schedule.objects.get(id=schedule["id"])
    with transaction.atomic():
        assert ledger.settle([row], until=datetime.now(UTC)) == ledger.MAX_SLOTS
    assert row.accounted_until < ago(days=1)

    sweep.settle_due()

    runs = world.runs(schedule)
    assert [run.slot for run in runs] == due(since, Schedule.objects.get(id=schedule["id"]).accounted_until)
    assert {run.status for run in runs[:-1]} == expected
    assert len([run for run in runs[:-1] if run.catch_up]) in {"none": {0}, "latest": {0}, "all": {99, 100}}[policy]
    assert runs[-1].status in {"none": {"missed", "queued"}}.get(policy, {"queued"})
