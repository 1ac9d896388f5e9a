"""What addresses and forms of the admin may not ask for: other tenants' secrets, nonsense, and too much at once."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from schedules.admin.base import MAX_AT_ONCE, OperatorAdmin, TenantScopedAdmin
from schedules.models import Role, Schedule, ScheduleRun, TenantMembership
from tests.support.people import page, signed_in

LISTS = {
    f"{model._meta.app_label}_{model._meta.model_name}": each
    for model, each in admin.site._registry.items()
    if isinstance(each, TenantScopedAdmin)
}
RUNS = "/admin/schedules/schedulerun/"
SCHEDULES = "/admin/schedules/schedule/"


def filters_of(model_admin):
    """The names that the filters of a list begin with."""
    for item in model_admin.list_filter:
        yield getattr(item, "parameter_name", None) or (item[0] if isinstance(item, tuple) else item)


def ask(viewer, operator, model, what, *arguments, **data):
    client = operator if isinstance(LISTS[model], OperatorAdmin) else viewer
    return client.get(reverse(f"admin:{model}_{what}", args=arguments), data).status_code


@pytest.mark.parametrize("model", LISTS)
def test_a_list_takes_no_lookup_but_those_of_its_filters(viewer, operator, world, model):
    suffixes = ("in", "regex", "startswith", "year", "id__in", "tenant__name__startswith")
    suffixes += ("installs__config__token__startswith", "installs__tenant__memberships__user__password__startswith")
    for name in ("id", "tenant", "created_at", *filters_of(LISTS[model])):
        for suffix in suffixes:
            lookup = {f"{name}__{suffix}": "("}
            assert ask(viewer, operator, model, "changelist", **lookup) == 400, (name, suffix)


def test_a_shared_extension_does_not_lead_to_what_others_keep_in_it(world, other_world):
    world.put_install(config={"token": "xyzzy"})
    stranger = signed_in(other_world, role=Role.VIEWER)

    for lookup in ("config__token__startswith", "tenant__id", "tenant__schedules__name"):
        asked = {f"install__extension__installs__{lookup}": "x"}
        assert page(stranger, "schedule_changelist", **asked).status_code == 400, lookup
    kept = {"install__extension__id__exact": str(world.registry_id), "enabled__exact": "1", "tenant": "junk"}
    assert page(stranger, "schedule_changelist", **kept).status_code == 200


@pytest.mark.parametrize("model", LISTS)
def test_a_list_answers_nonsense_with_a_page(viewer, operator, world, model):
    for value in ("a\x00b", "9" * 5000, "-1", "("):
        for name in ("q", "p", "o", "all", "e", "_popup", "tenant", *filters_of(LISTS[model])):
            assert ask(viewer, operator, model, "changelist", **{name: value}) in {200, 302, 400}, (name, value)
        assert ask(viewer, operator, model, "change", value) in {302, 404}, value


def test_addresses_that_no_page_uses_are_not_there(administrator, world):
    for address in ("/admin/autocomplete/", f"/admin/r/1/{world.tenant_id}/"):
        assert administrator.get(address).status_code == 404
    assert page(administrator, "tenant_change", world.tenant_id, _to_field="").status_code == 400
    assert page(administrator, "tenant_change", world.tenant_id, _to_field="id").status_code == 200


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "\x00"])
def test_a_page_of_runs_that_begins_nowhere_is_the_first(administrator, world, moment):
    schedule = world.create(sync=False)
    world.queued_run(schedule)

    shown = page(administrator, "schedule_page", schedule["id"], before=f"{moment}~{uuid.uuid4()}")

    assert shown.context["table"].is_first


@pytest.mark.parametrize("address", [RUNS, SCHEDULES, "/admin/schedules/apikey/"])
def test_ids_that_are_none_are_not_selected(administrator, world, address):
    schedule = world.create(sync=False)
    action = {RUNS: "cancel", SCHEDULES: "disable"}.get(address, "revoke")
    chosen = ["abc", "\x00", "9" * 5000, schedule["id"]]

    assert administrator.post(address, {"action": action, "_selected_action": chosen[:3]}).status_code == 302
    assert Schedule.objects.get(id=schedule["id"]).enabled
    assert administrator.post(address, {"action": action, "_selected_action": chosen}).status_code < 400
    assert Schedule.objects.get(id=schedule["id"]).enabled is (address != SCHEDULES)


def many_runs(world, schedule, count, **members):
    now = datetime.now(UTC)
    common = {"tenant_id": world.tenant_id, "install_id": world.install_id, "schedule_id": schedule["id"]}
    common |= {"trigger": "run_now", "status": "queued"} | members
    rows = [ScheduleRun(id=uuid.uuid4(), slot=now - timedelta(minutes=number), **common) for number in range(count)]
    return ScheduleRun.objects.bulk_create(rows)


def test_no_more_is_done_at_once_than_somebody_can_have_looked_at(administrator, world):
    schedule = world.create(sync=False)
    rows = many_runs(world, schedule, MAX_AT_ONCE + 1)
    waiting = ScheduleRun.objects.filter(tenant_id=world.tenant_id, status="queued")
    assert f"Select all {MAX_AT_ONCE + 1}" not in administrator.get(RUNS).content.decode()

    everything = {"action": "cancel", "confirmed": "yes", "_selected_action": str(rows[0].id), "select_across": "1"}
    each = everything | {"_selected_action": [str(row.id) for row in rows], "select_across": "0"}
    for data in (everything, each):
        told = administrator.post(RUNS, data, follow=True).content.decode()
        assert f"Nothing was done: at most {MAX_AT_ONCE} at once" in told
        assert waiting.count() == MAX_AT_ONCE + 1

    rows[0].delete()
    assert f"Select all {MAX_AT_ONCE} runs" in administrator.get(RUNS).content.decode()
    asked = administrator.post(RUNS, everything | {"confirmed": ""} | {"action": "replay"}, follow=True)
    assert f"{MAX_AT_ONCE} runs refused" in asked.content.decode()


def test_runs_are_cancelled_in_bulk_only_after_a_question(administrator, world):
    schedule = world.create(name="To be stopped", sync=False)
    waiting = many_runs(world, schedule, 2)
    ended = many_runs(world, schedule, 1, status="succeeded", finished_at=datetime.now(UTC))
    chosen = {"action": "cancel", "_selected_action": [str(row.id) for row in (*waiting, *ended)]}

    asked = administrator.post(RUNS, chosen).content.decode()
    assert "Cancel these runs?" in asked
    assert "To be stopped" in asked
    assert [asked.count(f'value="{row.id}"') for row in (*waiting, *ended)] == [1, 1, 0]
    assert ScheduleRun.objects.filter(tenant_id=world.tenant_id, status="queued").count() == 2

    told = administrator.post(RUNS, chosen | {"confirmed": "yes"}, follow=True).content.decode()
    assert "2 runs asked to stop" in told
    assert ScheduleRun.objects.filter(tenant_id=world.tenant_id, status="cancelled").count() == 2


def test_what_is_refused_for_one_reason_is_told_once(administrator, world, settings):
    settings.SCHEDULER_RUN_NOW_PER_MINUTE = 2
    ids = [world.create(name=f"Number {number}", sync=False)["id"] for number in range(9)]

    told = administrator.post(SCHEDULES, {"action": "run_now", "_selected_action": ids}, follow=True)

    errors = [str(message) for message in told.context["messages"] if message.level_tag == "error"]
    assert len(errors) == 1
    assert "7 schedules refused: At most 2 calls a minute" in errors[0]
    assert "and 2 more" in errors[0]
    assert "2 schedules asked to run" in told.content.decode()


def test_who_only_looks_in_one_of_two_tenants_can_select_nothing_of_it(world, other_world):
    looked_at, kept = world.create(sync=False), other_world.create(sync=False)
    runs = [each.queued_run(schedule) for each, schedule in ((world, looked_at), (other_world, kept))]
    both = signed_in(world, role=Role.VIEWER)
    TenantMembership.objects.create(tenant_id=other_world.tenant_id, user=both.user, role=Role.ADMINISTRATOR)

    for address, ids in ((SCHEDULES, (looked_at["id"], kept["id"])), (RUNS, [run.id for run in runs])):
        text = both.get(address).content.decode()
        assert [f'name="_selected_action" value="{key}"' in text for key in ids] == [False, True], address

    told = both.post(SCHEDULES, {"action": "disable", "_selected_action": [looked_at["id"], kept["id"]]}, follow=True)
    assert "you may not change this tenant" in told.content.decode()
    enabled = Schedule.objects.filter(id__in=[looked_at["id"], kept["id"]]).values_list("id", "enabled")
    assert {str(key): value for key, value in enabled} == {looked_at["id"]: True, kept["id"]: False}


def sql_of(ask):
    with CaptureQueriesContext(connection) as captured:
        assert ask().status_code in {200, 302}
    return [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize(
    ("model", "column"), [("schedulerun", "status"), ("schedulerun", "trigger"), ("auditevent", "actor")]
)
def test_a_list_is_sorted_by_nothing_that_has_no_index(administrator, operator, world, model, column):
    for client in (administrator, operator):
        columns = [str(number) for number in range(9)]
        asked = ".".join([*columns, *(f"-{column}" for column in columns), "--1", "x", "99"])
        statements = sql_of(lambda: page(client, f"{model}_changelist", o=asked))  # noqa: B023 - called at once
        ordered = [statement.rpartition("ORDER BY")[2] for statement in statements if "ORDER BY" in statement]
        assert not [order for order in ordered if f'"schedules_{model}"."{column}"' in order]


def test_the_list_of_all_tenants_runs_reads_the_newest_of_each_however_it_is_asked_for(operator, world):
    run = world.queued_run(world.create(sync=False))
    for ask in (
        lambda: operator.get(RUNS),
        lambda: operator.get(RUNS, {"tenant": "junk", "q": " "}),
        lambda: operator.post(RUNS, {"x": "1"}),
        lambda: operator.post(RUNS, {"action": "cancel", "_selected_action": "abc"}),
    ):
        listed = [sql for sql in sql_of(ask) if 'FROM "schedules_schedulerun"' in sql and "LIMIT" in sql]
        assert listed
        assert all("LATERAL" in sql for sql in listed)

    # One that is not among them any more is done something to all the same.
    newer = many_runs(world, {"id": str(run.schedule_id)}, 60)
    ScheduleRun.objects.filter(id=run.id).update(slot=newer[-1].slot - timedelta(days=1))
    operator.post(RUNS, {"action": "cancel", "confirmed": "yes", "_selected_action": str(run.id)})
    run.refresh_from_db()
    assert run.status == "cancelled"
    listed = operator.get(RUNS, {"tenant": str(world.tenant_id)}).context["cl"]
    assert listed.result_count == 61
