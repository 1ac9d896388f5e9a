"""The pages of the admin: what they cost, what they show of whom, and what their buttons do."""

import base64
import json
import re
import shlex
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from schedules import load, overview
from schedules.models import AuditEvent, ExtensionInstall, Schedule, ScheduleRun
from tests.support.people import page
from tests.support.waiting import eventually

NOW = datetime.now(UTC)


def statements(client, address):
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_pages_cost_the_same_with_one_schedule_and_with_fifty(administrator, operator, world):
    first = world.create(name="First", sync=False)
    world.queued_run(first)
    base = "/admin/schedules"
    addresses = (
        "/admin/",
        f"{base}/schedule/",
        f"{base}/schedule/add/?install={world.install_id}",
        f"{base}/schedule/{first['id']}/",
        f"{base}/schedulerun/",
        f"{base}/extensioninstall/",
        f"{base}/extensioninstall/{world.install_id}/change/",
        f"{base}/auditevent/",
    )
    operators = ("/admin/operations/", "/admin/load/")

    def all_in_sync():
        # What waits to be pushed is a statement more.
        rows = Schedule.objects.filter(tenant_id=world.tenant_id)
        eventually(lambda: not rows.exclude(synced_generation=F("generation")).exists())

    all_in_sync()
    for address in addresses:
        administrator.get(address)  # what a process reads once is read
    few = [statements(administrator, address) for address in addresses]
    few_of_operators = [statements(operator, address) for address in operators]
    for number in range(2, 51):
        schedule = world.create(name=f"Number {number}", cron=f"{number} * * * *", sync=False)
        world.queued_run(schedule)
    all_in_sync()

    many = [statements(administrator, address) for address in addresses]
    assert dict(zip(addresses, many, strict=True)) == dict(zip(addresses, few, strict=True))
    assert max(many) <= 25
    # The heaviest minutes are at most eight, each with the names of who is in it.
    for address, before in zip(operators, few_of_operators, strict=True):
        assert statements(operator, address) <= before + 8, address


def test_the_home_page_names_what_needs_attention_and_nothing_of_others(administrator, world, other_world):
    titles = ("Falls over", "Stopped", "Held back", "Nowhere to go")
    failing, paused, held, stranded = (world.create(name=name, sync=False) for name in titles)
    theirs = other_world.create(name="Somebody else's", sync=False)
    for row in (failing, theirs):
        Schedule.objects.filter(id=row["id"]).update(last_run_status="failed", last_run_at=NOW)
    Schedule.objects.filter(id=paused["id"]).update(enabled=False, disabled_reason="paused after 5 runs failed")
    gone = {"enabled": False, "disabled_reason": "version 2 does not offer its endpoint", "endpoint": None}
    Schedule.objects.filter(id=stranded["id"]).update(**gone)
    Schedule.objects.filter(id=held["id"]).update(held_since=NOW, held_note="Moving house")

    page_text = administrator.get(reverse("admin:index")).content.decode()

    for expected in ("Falls over", "Stopped", "paused after 5 runs failed", "Held back", "Moving house"):
        assert expected in page_text
    assert "Somebody else" not in page_text
    for kind, name in zip(("failing", "paused", "held", "stranded"), titles, strict=True):
        listed = page(administrator, "schedule_changelist", attention=kind).content.decode()
        found = [title for title in titles if f">{title}<" in listed]
        assert found == [name], kind


def test_a_hold_is_lifted_in_bulk_only_after_a_question(administrator, world):
    schedule = world.create(name="Held back")
    Schedule.objects.filter(id=schedule["id"]).update(held_since=NOW, held_note="Moving house")
    url = reverse("admin:schedules_schedule_changelist")
    action = {"action": "lift_hold", "_selected_action": [schedule["id"]]}

    asked = administrator.post(url, action)
    assert "Moving house" in asked.content.decode()
    assert Schedule.objects.get(id=schedule["id"]).held_since is not None
    administrator.post(url, action | {"confirmed": "yes"})

    assert Schedule.objects.get(id=schedule["id"]).held_since is None
    assert AuditEvent.objects.filter(subject_id=schedule["id"], action="schedule.hold_lifted").exists()


def test_a_second_click_on_run_now_is_the_same_run(administrator, world):
    schedule = world.create(sync=False)
    shown = administrator.get(reverse("admin:schedules_schedule_page", args=[schedule["id"]])).content.decode()
    key = re.search(r'name="request_key" value="([^"]+)"', shown).group(1)
    address = reverse("admin:schedules_schedule_act", args=[schedule["id"]])

    first, second = (administrator.post(address, {"do": "run_now", "request_key": key}) for _ in range(2))

    assert first.url == second.url
    assert ScheduleRun.objects.filter(schedule_id=schedule["id"]).count() == 1


def test_an_install_is_switched_off_and_on_and_a_repeat_changes_nothing(administrator, viewer, world):
    schedule = world.create()
    address = reverse("admin:schedules_install_act", args=[world.install_id, "disable"])
    assert viewer.post(address, {"confirmed": "yes"}).status_code == 403
    administrator.post(address)
    assert ExtensionInstall.objects.get(id=world.install_id).is_enabled

    for _ in range(2):
        administrator.post(address, {"confirmed": "yes"})
    install = ExtensionInstall.objects.get(id=world.install_id)
    assert (install.is_enabled, install.config) == (False, {"region": "eu"})
    assert world.synced(schedule)["enabled"]
    events = AuditEvent.objects.filter(subject_id=world.install_id, source="admin")
    assert [(event.before["is_enabled"], event.after["is_enabled"]) for event in events] == [(True, False)]

    administrator.post(reverse("admin:schedules_install_act", args=[world.install_id, "enable"]), {"confirmed": "yes"})
    assert ExtensionInstall.objects.get(id=world.install_id).is_enabled


def test_the_preview_beside_the_form_is_of_the_users_own_extensions(administrator, world, other_world):
    address = reverse("admin:schedules_schedule_preview")

    right = administrator.get(address, {"install": world.install_id, "cron": "0 4 * * *"})
    wrong = administrator.get(address, {"install": world.install_id, "cron": "0 4 31 2 *", "timezone": "Mars"})

    assert "At 04:00" in right.content.decode()
    assert "Europe/Berlin" in right.content.decode()
    assert wrong.status_code == 200
    assert wrong.content.decode().count("<li>") == 2
    assert administrator.get(address, {"install": other_world.install_id, "cron": "0 4 * * *"}).status_code == 404


def test_a_run_is_shown_as_a_command_without_what_is_secret(administrator, world, worker):
    world.put_install(config={"token": "xyzzy-value"}, secret_envelope={"ciphertext": "xyzzy-envelope"})
    run = world.finished_run(world.run_now(world.create(payload={"name": "O'Hara"}))["id"])

    command = page(administrator, "schedulerun_change", run["id"]).context["curl"]

    body = json.loads(shlex.split(command)[-1])
    assert body["context"]["invocation_id"] == run["id"]
    assert body["context"]["config"] == {"token": "<left out>"}
    assert json.loads(base64.b64decode(body["http"]["body_b64"])) == {"name": "O'Hara"}
    assert f"x-idempotency-key: {run['id']}:0" in shlex.split(command)
    assert "xyzzy" not in command


def test_passwords_must_be_long_and_not_common(database):
    with pytest.raises(ValidationError) as refused:
        validate_password("password1")
    assert {error.code for error in refused.value.error_list} >= {"password_too_short", "password_too_common"}


def test_the_load_of_the_coming_day_counts_each_slot_once(operator, world):
    before = load.read_load(now=NOW).total
    world.create(cron="17 3 * * *", timezone="Asia/Kathmandu", sync=False)
    world.create(cron="17,47 * * * *", sync=False)
    disabled = world.create(cron="20 * * * *", sync=False)
    Schedule.objects.filter(id=disabled["id"]).update(enabled=False)

    assert load.read_load(now=NOW).total == before + 1 + 48
    assert page_text(operator, "/admin/load/").count("heat level-") > 0


def page_text(client, address):
    return client.get(address).content.decode()


def test_the_slots_of_the_coming_hour_are_told_soonest_first(world, other_world):
    moment = datetime(2026, 3, 3, 10, 7, tzinfo=UTC)
    quarters = world.create(cron="*/15 * * * *", timezone="UTC", name="Quarters", sync=False)
    later = world.create(cron="30 11 * * *", timezone="Europe/Berlin", name="At 10:30 UTC", sync=False)
    tomorrow = world.create(cron="0 9 * * *", timezone="UTC", sync=False)
    theirs = other_world.create(cron="20 * * * *", timezone="UTC", sync=False)
    ids = [row["id"] for row in (quarters, later, tomorrow, theirs)]
    Schedule.objects.filter(id__in=ids).update(next_slot_at=moment)

    due = overview.due_within_the_hour([world.tenant_id], now=moment)

    told = [(f"{slot:%H:%M}", schedule.name) for slot, schedule in due]
    assert sorted(told) == sorted(
        [(at, "Quarters") for at in ("10:15", "10:30", "10:45", "11:00")] + [("10:30", "At 10:30 UTC")]
    )
    assert [at for at, _ in told] == sorted(at for at, _ in told)


def test_the_runs_of_each_hour_are_counted_for_the_tenant_alone(world, other_world):
    schedule, theirs = world.create(sync=False), other_world.create(sync=False)
    for owner, row in ((world, schedule), (other_world, theirs)):
        run = owner.queued_run(row)
        ScheduleRun.objects.filter(id=run.id).update(slot=NOW - timedelta(hours=3))
        old = owner.queued_run(row)
        ScheduleRun.objects.filter(id=old.id).update(slot=NOW - timedelta(hours=30))

    counts = overview.runs_by_hour([world.tenant_id], now=NOW)

    hour = (NOW - timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
    assert counts == {hour: {"queued": 1}}
