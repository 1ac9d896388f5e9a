"""Lists and the audit trail call things by their names, find them by these, and tell what has gone meanwhile."""

import json
import re
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from schedules import audit, kill_switches, overview, services
from schedules.models import (
    AuditEvent,
    KillScope,
    KillSwitch,
    Notification,
    NotificationChannel,
    Schedule,
    ScheduleRun,
)
from tests.support.expressions import DAILY
from tests.support.people import page
from tests.support.threads import at_once
from tests.support.world import ACTOR

NOW = datetime.now(UTC)


def text_of(response):
    return response.content.decode()


def test_runs_are_listed_under_their_schedules(administrator, world):
    schedule, gone = world.create(name="Nightly copy", sync=False), world.create(name="Soon gone", sync=False)
    for row in (schedule, gone):
        world.queued_run(row)
    world.api("DELETE", f"schedules/{gone['id']}", expect=204)

    text = text_of(page(administrator, "schedulerun_changelist"))

    assert f'<a href="{reverse("admin:schedules_schedule_page", args=[schedule["id"]])}">Nightly copy</a>' in text
    assert "Soon gone" not in text
    assert "Deleted" in text


def test_the_audit_trail_names_what_was_changed(administrator, operator, world):
    schedule, gone = world.create(name="Nightly copy", sync=False), world.create(name="Soon gone", sync=False)
    world.api("PATCH", f"schedules/{schedule['id']}", {"cron": "5 5 * * *"}, expect=200)
    world.api("DELETE", f"schedules/{gone['id']}", expect=204)

    text = text_of(page(administrator, "auditevent_changelist"))
    own = reverse("admin:schedules_schedule_page", args=[schedule["id"]])
    assert f'Schedule <a href="{own}">Nightly copy</a>' in text
    assert "Schedule Soon gone" in text
    assert f">{world.publisher}.reports</a>" in text

    event = AuditEvent.objects.get(subject_id=schedule["id"], action="schedule.updated")
    shown = text_of(page(administrator, "auditevent_change", event.id))
    assert "<h1>Schedule updated by " in shown
    assert f'<a href="{own}">Nightly copy</a>' in shown
    row = shown[shown.index("<td>Cron</td>") :]
    assert row.index(DAILY) < row.index("5 5 * * *")
    assert "{&quot;" not in shown

    platform = AuditEvent.objects.get(subject_id=world.registry_id, action="extension.put")
    assert f">{world.publisher}.reports</a>" in text_of(page(operator, "auditevent_change", platform.id))
    assert page(administrator, "auditevent_change", platform.id).status_code == 404


def test_the_audit_trail_is_searched_by_id_and_by_how_a_word_begins(administrator, world):
    first, second = world.create(name="First", sync=False), world.create(name="Second", sync=False)
    for search, expected in (
        (first["id"], [True, False]),
        (second["id"].replace("-", ""), [False, True]),
        ("schedule.created", [True, True]),
        ("Schedule cre", [True, True]),
        ("chedule", [False, False]),
        (first["id"][:8], [False, False]),
    ):
        text = text_of(page(administrator, "auditevent_changelist", q=search))
        assert [f">{name}</a>" in text for name in ("First", "Second")] == expected, search


def test_an_extension_is_found_by_the_name_that_it_is_shown_by(operator, world, other_world):
    schedule, theirs = world.create(name="Ours", sync=False), other_world.create(name="Theirs", sync=False)
    for owner, row in ((world, schedule), (other_world, theirs)):
        owner.queued_run(row)
    search = f"{world.publisher}.reports"
    slugs = (f">{world.publisher}.reports<", f">{other_world.publisher}.reports<")

    for name, marks in (
        ("schedule_changelist", (">Ours<", ">Theirs<")),
        ("schedulerun_changelist", (">Ours<", ">Theirs<")),
        ("extensioninstall_changelist", slugs),
        ("schedule_add", slugs),
    ):
        text = text_of(page(operator, name, q=search))
        assert [mark in text for mark in marks] == [True, False], name
    found = text_of(page(operator, "extension_changelist", q=search))
    assert str(world.registry_id) in found
    assert str(other_world.registry_id) not in found


@contextmanager
def somebody_quicker(act):
    """Lets somebody do it, from beginning to end, just before a service takes the first lock."""
    done = []

    def before(execute, sql, params, many, context):
        if " FOR " in sql and not done:
            done.append(None)
            at_once(lambda _: act(), 1)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(before):
        yield
    assert done


@pytest.mark.parametrize("button", ["schedule_delete", "schedule_hold"])
def test_what_goes_between_the_page_and_the_click_is_told(administrator, world, button):
    schedule = world.create(name="Going", sync=False)
    Schedule.objects.filter(id=schedule["id"]).update(held_since=NOW)
    named = {"tenant_id": world.tenant_id, "install_id": world.install_id, "schedule_id": schedule["id"]}

    with somebody_quicker(lambda: services.delete_schedule(**named, actor=ACTOR)):
        answer = administrator.post(
            reverse(f"admin:schedules_{button}", args=[schedule["id"]]), {"post": "yes", "confirmed": "yes"}
        )

    assert answer.url == reverse("admin:schedules_schedule_changelist")
    assert "Going: Schedule not found" in text_of(administrator.get(answer.url))


def test_the_list_of_schedules_says_that_an_operator_has_stopped_them(administrator, world):
    target = kill_switches.find_target(scope=KillScope.TENANT, name=str(world.tenant_id))
    kill_switches.engage(target, reason="Tests: moving house", actor=audit.Actor(audit.Source.COMMAND, "olga"))
    try:
        assert "Tests: moving house" in text_of(page(administrator, "schedule_changelist"))
    finally:
        KillSwitch.objects.filter(target_id=world.tenant_id).delete()
    assert "Tests: moving house" not in text_of(page(administrator, "schedule_changelist"))


@pytest.mark.parametrize("model", ["tenant", "extension", "extensionversion", "notification"])
def test_times_of_the_platforms_lists_have_their_zone(operator, world, model):
    channel = NotificationChannel.objects.create(tenant_id=world.tenant_id, kind="email", target="ops@example.test")
    Notification.objects.create(
        tenant_id=world.tenant_id,
        channel=channel,
        event="failure",
        schedule_id=uuid.uuid4(),
        body={},
        next_attempt_at=None,
    )

    text = text_of(page(operator, f"{model}_changelist"))

    created = re.findall(r'<t[hd] class="field-created(?:_at)?[ "].*?</t[hd]>', text, re.DOTALL)
    assert created
    assert [cell for cell in created if not re.search(r'<time datetime="[^"]+\+00:00"', cell)] == []


def test_how_long_the_newest_runs_took_is_read_from_one_row_for_each_schedule(world):
    heavy, light, idle = (world.create(name=name, sync=False) for name in ("Heavy", "Light", "Idle"))
    rows = list(Schedule.objects.filter(id__in=[heavy["id"], light["id"], idle["id"]]))
    common = {"tenant_id": world.tenant_id, "install_id": world.install_id, "trigger": "run_now"}
    took = {"status": "succeeded", "started_at": NOW, "finished_at": NOW + timedelta(seconds=2), "slot": NOW}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FILL, [world.tenant_id, world.install_id, heavy["id"]])
        ScheduleRun.objects.create(id=light["id"], schedule_id=light["id"], **common, **took)
        # As the statistics are once one schedule has had nearly all of the runs.
        cursor.execute("ALTER TABLE schedules_schedulerun ALTER schedule_id SET (n_distinct = 1)")
        cursor.execute("ANALYZE schedules_schedulerun")
        with CaptureQueriesContext(connection) as captured:
            durations = overview.last_durations(rows)
        (query,) = captured.captured_queries
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query["sql"])
        (plan,) = cursor.fetchone()
        transaction.set_rollback(True)

    assert {str(key): value for key, value in durations.items()} == {heavy["id"]: 120, light["id"]: 2000}
    scans = list(scans_in((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))
    assert scans
    for scan in scans:
        assert scan["Actual Rows"] <= 1
        assert scan.get("Rows Removed by Filter", 0) == 0


def scans_in(node):
    if node.get("Relation Name") == "schedules_schedulerun":
        yield node
    for child in node.get("Plans", ()):
        yield from scans_in(child)


_FILL = """
INSERT INTO schedules_schedulerun (id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, version_name,
    content_hash, endpoint_method, endpoint_path, actor, error, workflow_id, workflow_run_id, started_at, finished_at)
SELECT gen_random_uuid(), %s, %s, %s, 'run_now', now() - n * interval '1 second', 'succeeded', '', '', '', '', '', '',
    '', '', '', now(), now() + interval '120 milliseconds'
FROM generate_series(1, 5000) AS n
"""
