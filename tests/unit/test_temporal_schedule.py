"""A row becomes a Temporal Schedule. Pure."""

import uuid
from datetime import timedelta

import pytest
from temporalio.client import ScheduleOverlapPolicy

from schedules import temporal
from schedules.calendars import UtcCalendar

TENANT, INSTALL, EXTENSION, SCHEDULE, DEPLOYMENT = (uuid.UUID(int=number) for number in range(1, 6))


def state(**changes):
    values = {
        "tenant_id": TENANT,
        "install_id": INSTALL,
        "extension_id": EXTENSION,
        "schedule_id": SCHEDULE,
        "cron": "*/20 9-17 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "calendars": (UtcCalendar((0, 20, 40), tuple(range(8, 17)), weekdays=(1, 2, 3, 4, 5), years=(2026, 2027)),),
        "active": True,
        "generation": 3,
        "deployment": DEPLOYMENT,
    }
    return temporal.MirrorState(**(values | changes))


def test_the_schedule_starts_our_workflow_with_ids_only():
    schedule = temporal.build_schedule(state())

    action = schedule.action
    assert state().id == f"extsched:{INSTALL}:{SCHEDULE}"
    assert action.id == state().id
    assert action.workflow == "RunSchedule"
    assert action.task_queue == "extension-schedules"
    (request,) = action.args
    assert vars(request) == {
        "tenant_id": str(TENANT),
        "install_id": str(INSTALL),
        "schedule_id": str(SCHEDULE),
        "trigger": "schedule",
        "invocation_id": "",
        "slot": "",
        "begins_locally": True,
    }


def test_the_expression_is_sent_as_utc_values_and_never_as_text():
    spec = temporal.build_schedule(state()).spec

    assert not spec.cron_expressions
    assert not spec.intervals
    (calendar,) = spec.calendars
    assert [(run.start, run.end) for run in calendar.minute] == [(0, 0), (20, 20), (40, 40)]
    assert [(run.start, run.end) for run in calendar.hour] == [(8, 16)]
    assert [(run.start, run.end) for run in calendar.day_of_month] == [(1, 31)]
    assert [(run.start, run.end) for run in calendar.month] == [(1, 12)]
    assert [(run.start, run.end) for run in calendar.day_of_week] == [(1, 5)]
    assert [(run.start, run.end) for run in calendar.year] == [(2026, 2027)]
    assert calendar.comment == "*/20 9-17 * * MON-FRI in Europe/Berlin"
    assert spec.time_zone_name == "UTC"


def test_overlap_and_lateness_are_left_to_the_claim():
    policy = temporal.build_schedule(state()).policy

    assert policy.overlap is ScheduleOverlapPolicy.ALLOW_ALL
    assert policy.catchup_window == timedelta(minutes=5)


@pytest.mark.parametrize(("active", "note"), [(True, ""), (False, "Disabled in the scheduler")])
def test_an_inactive_schedule_is_paused_with_our_note(active, note):
    built = temporal.build_schedule(state(active=active)).state

    assert built.paused is not active
    assert built.note == note


def test_the_attributes_say_whose_it_is_and_which_generation_it_shows():
    attributes = {pair.key.name: pair.value for pair in temporal.mirror_search_attributes(state())}

    assert attributes == {
        "TenantId": str(TENANT),
        "InstallId": str(INSTALL),
        "ExtensionId": str(EXTENSION),
        "ScheduleId": str(SCHEDULE),
        "RunTrigger": "schedule",
        "ScheduleGeneration": "3",
        "ScheduleDeployment": str(DEPLOYMENT),
    }
