"""The admin: operators see every tenant, members theirs, viewers change nothing, and writes go through the services."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from schedules import api_keys, notifications
from schedules.models import (
    ApiEndpoint,
    ApiKey,
    AuditEvent,
    NotificationChannel,
    Role,
    Schedule,
    ScheduleRun,
)
from tests.support.expressions import DAILY
from tests.support.people import page
from tests.support.waiting import eventually
from tests.support.world import ACTOR

MODELS = (
    "tenant",
    "extensioninstall",
    "apiendpoint",
    "schedule",
    "schedulerun",
    "auditevent",
    "apikey",
    "notificationchannel",
    "notification",
)
OPERATOR_MODELS = ("extension", "extensionversion", "tenantmembership")


def form(world, **changes):
    endpoint = ApiEndpoint.objects.get(version__installs__id=world.install_id, path=world.path)
    values = {
        "install": str(world.install_id),
        "endpoint": str(endpoint.id),
        "name": "By hand",
        "cron": DAILY,
        "timezone": "",
        "enabled": "on",
        "payload": '{"a": 1}',
    } | changes
    return {name: value for name, value in values.items() if value is not None}


def submit(client, data, *, schedule=None):
    if schedule is None:
        return client.post(reverse("admin:schedules_schedule_add"), data)
    return client.post(reverse("admin:schedules_schedule_change", args=[schedule["id"]]), data)


def errors_of(response):
    assert response.status_code == 200
    return response.context["adminform"].form.errors


def test_nobody_is_sent_to_the_login(database):
    response = Client().get(reverse("admin:schedules_schedule_changelist"))

    assert response.status_code == 302
    assert "/admin/login/" in response.url


@pytest.mark.parametrize("model", MODELS + OPERATOR_MODELS)
def test_every_list_opens_for_an_operator(operator, world, model):
    world.run_now(world.create(name="Seen by operators"))

    assert page(operator, f"{model}_changelist").status_code == 200
    assert page(operator, f"{model}_changelist", q="x").status_code == 200


def test_every_kind_of_row_opens(operator, world):
    schedule = world.create()
    run = world.run_now(schedule)
    assert page(operator, "schedule_change", schedule["id"]).status_code == 200
    assert page(operator, "schedulerun_change", run["id"]).status_code == 200
    assert page(operator, "extensioninstall_change", world.install_id).status_code == 200
    assert page(operator, "tenant_change", world.tenant_id).status_code == 200
    event = AuditEvent.objects.filter(tenant_id=world.tenant_id).first()
    assert page(operator, "auditevent_change", event.id).status_code == 200
    assert operator.get(reverse("admin:index")).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_a_member_sees_their_tenant_only(administrator, world, other_world, model):
    mine, theirs = world.create(name="Mine alone"), other_world.create(name="Theirs alone")
    world.run_now(mine)
    other_world.run_now(theirs)
    other_world.key()

    text = page(administrator, f"{model}_changelist").content.decode()

    their_key = ApiKey.objects.get(tenant_id=other_world.tenant_id)
    for secret in (
        str(their_key.id),
        their_key.prefix,
        theirs["id"],
        "Theirs alone",
        other_world.path,
        other_world.publisher,
        str(other_world.tenant_id),
    ):
        assert secret not in text


@pytest.mark.parametrize("model", OPERATOR_MODELS)
def test_what_belongs_to_the_platform_is_closed_to_members(administrator, model):
    assert page(administrator, f"{model}_changelist").status_code == 403


def test_another_tenants_rows_cannot_be_opened_changed_or_deleted(administrator, other_world):
    theirs = other_world.create()
    run = other_world.run_now(theirs)

    for name, key in (
        ("schedule_change", theirs["id"]),
        ("schedule_delete", theirs["id"]),
        ("schedule_history", theirs["id"]),
        ("schedulerun_change", run["id"]),
        ("extensioninstall_change", other_world.install_id),
        ("tenant_change", other_world.tenant_id),
    ):
        assert page(administrator, name, key).status_code in {302, 403, 404}, name
    assert submit(administrator, form(other_world), schedule=theirs).status_code in {302, 403, 404}
    assert "install" in errors_of(submit(administrator, form(other_world)))
    actions = {"action": "delete_through_service", "_selected_action": theirs["id"]}
    administrator.post(reverse("admin:schedules_schedule_changelist"), actions)
    assert Schedule.objects.get(id=theirs["id"]).revision == 1


def test_a_schedule_is_created_changed_and_deleted_through_the_services(administrator, world):
    assert submit(administrator, form(world)).status_code == 302
    schedule = Schedule.objects.get(install_id=world.install_id)
    assert (schedule.name, schedule.timezone, schedule.payload) == ("By hand", "Europe/Berlin", {"a": 1})
    world.synced({"id": schedule.id})

    changed = form(world, install=None, cron="5 5 * * *", enabled=None, payload="")
    assert submit(administrator, changed, schedule={"id": schedule.id}).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.cron, schedule.enabled, schedule.payload, schedule.revision) == ("5 5 * * *", False, None, 2)

    administrator.post(reverse("admin:schedules_schedule_delete", args=[schedule.id]), {"post": "yes"})
    assert not Schedule.objects.filter(id=schedule.id).exists()
    events = AuditEvent.objects.filter(subject_id=schedule.id).order_by("id")
    assert [(event.action, event.source, event.actor) for event in events] == [
        (f"schedule.{what}", "admin", administrator.user.username) for what in ("created", "updated", "deleted")
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "99 * * * *"}, "cron"),
        ({"cron": "* * * * *"}, "cron"),
        ({"timezone": "Mars"}, "timezone"),
        ({"payload": "5"}, "payload"),
        ({"payload": "{"}, "payload"),
        ({"name": "Taken"}, "name"),
        ({"endpoint": "nonsense"}, "endpoint"),
        ({"name": "x" * 129}, "name"),
        ({"payload": "[" * 100_000}, "payload"),
        ({"payload": "[" + "9" * 5000 + "]"}, "payload"),
        ({"payload": '["\\ud800"]'}, "payload"),
        ({"payload": '["\\u0000"]'}, "payload"),
    ],
)
def test_wrong_input_is_told_at_its_field_and_changes_nothing(administrator, world, changes, field):
    world.create(name="Taken")

    assert list(errors_of(submit(administrator, form(world, **changes)))) == [field]
    assert Schedule.objects.filter(install_id=world.install_id).count() == 1


def test_a_full_quota_is_told_above_the_form(administrator, world, settings):
    settings.SCHEDULER_MAX_PER_INSTALL = 0

    assert "Too many schedules" in str(errors_of(submit(administrator, form(world))))


def test_hidden_members_cannot_be_guessed_by_filters(viewer, world):
    world.put_install(config={"token": "xyzzy"}, secret_envelope={"ciphertext": "xyzzy"})
    for model, lookup in (
        ("extensioninstall", "config__token__startswith"),
        ("extensioninstall", "secret_envelope__ciphertext__startswith"),
        ("apikey", "digest__startswith"),
        ("schedule", "install__config__token__startswith"),
        ("schedulerun", "tenant__name__startswith"),
    ):
        assert page(viewer, f"{model}_changelist", **{lookup: "x"}).status_code == 400, lookup
    assert page(viewer, "schedule_changelist", enabled__exact="1").status_code == 200
    assert page(viewer, "schedulerun_changelist", status__exact="succeeded").status_code == 200


def test_a_form_that_was_opened_before_somebody_elses_change_does_not_undo_it(administrator, world):
    schedule = world.create(name="Before")
    world.change(schedule, enabled=False, cron="7 7 * * *")

    stale = form(world, install=None, seen_revision="1", name="After")
    assert "Somebody else changed" in str(errors_of(submit(administrator, stale, schedule=schedule)))

    current = Schedule.objects.get(id=schedule["id"])
    assert (current.enabled, current.cron, current.name) == (False, "7 7 * * *", "Before")


def test_a_viewer_looks_and_does_not_touch(viewer, world):
    schedule = world.create(name="Look at me")

    assert b"Look at me" in page(viewer, "schedule_changelist").content
    assert page(viewer, "schedule_change", schedule["id"]).status_code == 200
    assert page(viewer, "schedule_add").status_code == 403
    assert submit(viewer, form(world, install=None, name="x"), schedule=schedule).status_code == 403
    assert page(viewer, "schedule_delete", schedule["id"]).status_code == 403
    viewer.post(
        reverse("admin:schedules_schedule_changelist"),
        {"action": "disable", "_selected_action": schedule["id"]},
    )
    assert Schedule.objects.get(id=schedule["id"]).enabled


def test_bulk_actions_tell_what_was_refused(administrator, world):
    first, second = world.create(), world.create()
    url = reverse("admin:schedules_schedule_changelist")
    both = {"_selected_action": [first["id"], second["id"]]}

    response = administrator.post(url, both | {"action": "disable"}, follow=True)
    assert "2 schedules disabled" in response.content.decode()
    assert not Schedule.objects.filter(install_id=world.install_id, enabled=True).exists()

    world.put_install(is_enabled=False)
    response = administrator.post(url, both | {"action": "run_now"}, follow=True)
    assert "The extension is disabled" in response.content.decode()
    assert not ScheduleRun.objects.filter(install_id=world.install_id).exists()

    asked = administrator.post(url, both | {"action": "delete_through_service"}, follow=True)
    assert "cannot be undone" in asked.content.decode()
    assert Schedule.objects.filter(install_id=world.install_id).count() == 2
    response = administrator.post(url, both | {"action": "delete_through_service", "confirmed": "yes"}, follow=True)
    assert "2 schedules deleted" in response.content.decode()


def test_configuration_values_are_not_shown(administrator, world):
    world.put_install(config={"token": "xyzzy-value"}, secret_envelope={"ciphertext": "xyzzy-envelope"})

    text = page(administrator, "extensioninstall_change", world.install_id).content.decode()

    assert "token" in text
    assert "xyzzy" not in text


def test_policies_are_kept_and_their_errors_stand_at_their_fields(administrator, world):
    policies = {
        "overlap_policy": "queue",
        "catch_up_policy": "latest",
        "retry_max_attempts": "5",
        "attempt_timeout_seconds": "",
        "pause_after_failures": "0",
    }
    wrong = submit(administrator, form(world, **policies | {"retry_max_attempts": "99"}))
    assert list(errors_of(wrong)) == ["retry_max_attempts"]

    submit(administrator, form(world, **policies))

    schedule = Schedule.objects.get(tenant_id=world.tenant_id)
    assert (schedule.overlap_policy, schedule.catch_up_policy) == ("queue", "latest")
    assert (schedule.retry_max_attempts, schedule.attempt_timeout_seconds) == (5, None)
    assert (schedule.pause_after_failures, schedule.run_deadline_seconds) == (0, 600)


def test_a_channel_is_made_in_the_browser_and_its_secret_shown_once(administrator, viewer, world, other_world):
    data = {"tenant": world.tenant_id, "kind": "webhook", "events": ["failure"], "is_active": "on"}
    address = reverse("admin:schedules_notificationchannel_add")

    wrong = administrator.post(address, data | {"target": "http://10.0.0.1/"})
    assert "private" in str(errors_of(wrong)["target"])
    foreign = administrator.post(address, data | {"tenant": other_world.tenant_id, "target": "https://example.com/"})
    assert "tenant" in errors_of(foreign)
    assert viewer.post(address, data | {"target": "https://example.com/"}).status_code == 403
    once = data | {"target": "https://example.com/", "request_key": request_key(administrator.get(address))}
    made = administrator.post(address, once)
    again = administrator.post(address, once, follow=True)

    channel = NotificationChannel.objects.get(tenant_id=world.tenant_id)
    assert channel.secret in made.content.decode()
    assert "shown only once" in again.content.decode()
    assert channel.secret not in again.content.decode() + str(administrator.cookies)
    shown = page(administrator, "notificationchannel_change", channel.id).content.decode()
    assert channel.secret not in shown
    # It stays what it is, and that is not asked for.
    assert 'name="kind"' not in shown
    administrator.post(
        reverse("admin:schedules_notificationchannel_change", args=[channel.id]),
        data | {"target": "https://example.org/", "events": ["missed"], "kind": "email"},
    )
    channel.refresh_from_db()
    assert (channel.target, channel.events, channel.kind) == ("https://example.org/", ["missed"], "webhook")


def test_an_api_key_is_made_in_the_browser_shown_once_and_revoked(administrator, world):
    address = reverse("admin:schedules_apikey_add")
    data = {"tenant": world.tenant_id, "name": "Backup", "role": "viewer", "expires_at_0": "", "expires_at_1": ""}
    data["request_key"] = request_key(administrator.get(address))
    made = administrator.post(address, data)
    text = re.search(r"esk_\w[\w-]+", made.content.decode()).group()
    again = administrator.post(address, data, follow=True)
    key = ApiKey.objects.get(tenant_id=world.tenant_id, name="Backup")

    assert world.api("GET", "schedules", key=text, expect=200)
    assert "shown only once" in again.content.decode()
    for answer in (again, page(administrator, "apikey_change", key.id), page(administrator, "apikey_changelist")):
        assert text not in answer.content.decode()
    assert text not in str(administrator.cookies)

    chosen = {"action": "revoke", "_selected_action": [str(key.id)]}
    asked = administrator.post(reverse("admin:schedules_apikey_changelist"), chosen)
    assert "cannot be undone" in asked.content.decode()
    assert world.api("GET", "schedules", key=text, expect=200)
    administrator.post(reverse("admin:schedules_apikey_changelist"), chosen | {"confirmed": "yes"})

    world.api("GET", "schedules", key=text, expect=401)
    assert page(administrator, "apikey_changelist").content.decode().count("<time ") == 2
    assert re.search(r"\d\d:\d\d:\d\d UTC", page(administrator, "apikey_change", key.id).content.decode())


def test_a_link_to_a_form_names_the_tenant_and_nothing_else(administrator, world):
    given = {"tenant": str(world.tenant_id), "role": "x", "expires_at": "\x00"}
    form = page(administrator, "apikey_add", **given).context["adminform"].form
    assert form.initial == {"tenant": world.tenant_id}
    assert page(administrator, "notificationchannel_add", tenant="\x00").status_code == 200


def request_key(shown):
    return re.search(r'name="request_key" value="([^"]+)"', shown.content.decode()).group(1)


@pytest.mark.parametrize("model", ["apikey", "notificationchannel"])
def test_what_is_gone_when_the_question_is_answered_is_told(administrator, world, model):
    """Somebody deletes the row while the request is under way: the service waits for them and then finds nothing."""
    if model == "apikey":
        row, _ = api_keys.create_key(tenant_id=world.tenant_id, name="Going", role=Role.VIEWER, actor=ACTOR)
        address = reverse("admin:schedules_apikey_changelist")
        data = {"action": "revoke", "_selected_action": [str(row.id)], "confirmed": "yes"}
    else:
        target = {"kind": "email", "target": "a@example.com", "events": ["missed"]}
        row = notifications.create_channel(tenant_id=world.tenant_id, actor=ACTOR, **target)
        address, data = reverse("admin:schedules_notificationchannel_delete", args=[row.id]), {"post": "yes"}

    def ask():
        try:
            return administrator.post(address, data, follow=True)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            type(row).objects.filter(id=row.id).delete()
            answer = threads.submit(ask)
            eventually(somebody_waits_for_this_transaction)
        assert "not found" in answer.result(30).content.decode()


def somebody_waits_for_this_transaction():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid")
        return cursor.fetchone() is not None


def test_runs_are_stopped_and_repeated_in_the_browser(administrator, viewer, world, worker):
    run = world.finished_run(world.run_now(world.create())["id"])
    address = reverse("admin:schedules_schedulerun_changelist")
    selected = {"_selected_action": [run["id"]]}

    viewer.post(address, {"action": "replay"} | selected)
    assert ScheduleRun.objects.filter(tenant_id=world.tenant_id).count() == 1
    administrator.post(address, {"action": "replay"} | selected)
    refused = administrator.post(address, {"action": "cancel"} | selected, follow=True)

    assert ScheduleRun.objects.get(tenant_id=world.tenant_id, trigger="replay").replay_of == uuid.UUID(run["id"])
    assert "has ended already" in refused.content.decode()
    assert run["id"] in page(administrator, "schedulerun_change", run["id"]).content.decode()
