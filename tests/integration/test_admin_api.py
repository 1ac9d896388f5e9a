"""The admin API, as a tenant's tools call it."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from schedules import api_keys, temporal
from schedules.models import ApiKey, AuditEvent, Role, ScheduleRun, TenantMembership
from tests.support.expressions import DAILY
from tests.support.world import ACTOR


def test_a_schedule_lives_from_create_to_delete(world):
    created = world.create(name="Nightly", payload=[1, 2])
    path = f"schedules/{created['id']}"
    assert created["revision"] == 1
    assert created["timezone"] == "Europe/Berlin"
    assert {"id", "install_id", "endpoint_id", "disabled_reason", "sync_state", "next_run_at", "updated_at"} <= set(
        created
    )

    changed = world.change(created, name=None, cron=" 5  4 * * * ")
    assert (changed["name"], changed["cron"], changed["revision"]) == (None, "5 4 * * *", 2)
    assert world.api("GET", path, expect=200) == changed
    assert world.api("GET", "schedules", expect=200)["results"] == [changed]

    world.api("DELETE", path, expect=204)
    world.api("GET", path, expect=404)
    world.api("DELETE", path, expect=404)
    actions = AuditEvent.objects.filter(subject_id=created["id"]).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["schedule.created", "schedule.updated", "schedule.deleted"]


def test_a_repeated_change_writes_nothing(world):
    schedule = world.create()
    for _ in range(2):
        changed = world.api("PATCH", f"schedules/{schedule['id']}", {"cron": "5 5 * * *"}, expect=200)

    assert changed["revision"] == 2
    assert AuditEvent.objects.filter(subject_id=schedule["id"]).count() == 2


def test_the_extension_goes_by_three_names(world):
    schedule = world.create()
    for ref in (world.install_id, world.registry_id, f"{world.publisher}.{world.extension_name}"):
        found = world.api("GET", "schedules", ref=ref, expect=200)["results"]
        assert [item["id"] for item in found] == [schedule["id"]]
    for ref in (uuid.uuid4(), "acme.unknown", "%00", "x" * 500):
        world.api("GET", "schedules", ref=ref, expect=404)


def test_a_stale_revision_is_412_and_changes_nothing(world):
    schedule = world.create()
    path = f"schedules/{schedule['id']}"
    world.api("PATCH", path, {"name": "first"}, expect=200, if_match='"1"')

    answer = world.api("PATCH", path, {"name": "second"}, expect=412, if_match='"1"')

    assert answer["code"] == "stale_revision"
    assert answer["data"] == {"revision": 2}
    world.api("DELETE", path, expect=412, if_match='"1"')
    assert world.api("GET", path)["name"] == "first"


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({}, "endpoint"),
        ({"endpoint": "POST /x", "cron": "0 4 * * *"}, "endpoint"),
        ({"endpoint_id": str(uuid.uuid4()), "cron": "0 4 * * *"}, "endpoint_id"),
        ({"endpoint_id": "x"}, "endpoint_id"),
        ({"cron": 5}, "cron"),
        ({"cron": "0 4 * * *", "time_zone": "UTC"}, "time_zone"),
        ({"enabled": "true"}, "enabled"),
        ({"name": 5}, "name"),
        ([], "body"),
    ],
)
def test_bad_input_names_its_member(world, body, member):
    answer = world.api("POST", "schedules", body, expect=400)

    assert answer["code"] == "invalid"
    assert set(answer) == {"code", "message", "fields", "data"}
    assert member in answer["fields"] or member == "body"


@pytest.mark.parametrize("cursor", ["cD1hYmM=", "cD0lMDA=", "abc"])
def test_a_made_up_cursor_is_bad_input(world, cursor):
    world.create()

    assert world.api("GET", f"schedules?cursor={cursor}")["code"] in {"invalid", "not_found"}


def test_a_member_that_cannot_even_be_repeated_is_bad_input(world):
    answer = world.api("POST", "schedules", {"\ud800": 1}, expect=400)

    assert "\\ud800" in answer["fields"]


def test_a_body_beyond_all_use_is_refused_in_json(world):
    assert world.api("POST", "schedules", {"payload": "x" * 3_000_000}, expect=413)["code"] == "too_large"


def test_the_preview_tells_what_would_happen(world):
    body = {"cron": "30 2 * * *", "timezone": "America/New_York", "count": 2, "after": "2027-03-13T12:00:00Z"}

    shown = world.api("POST", "schedules/preview", body, role=Role.VIEWER, expect=200)

    assert shown["next_runs"] == [
        {"utc": "2027-03-14T07:00:00Z", "local": "2027-03-14T03:00:00-04:00"},
        {"utc": "2027-03-15T06:30:00Z", "local": "2027-03-15T02:30:00-04:00"},
    ]
    assert shown["words"] == "At 02:30"
    assert shown["shortest_gap_seconds"] == 86400
    assert {note["kind"] for note in shown["clock_changes"]} == {"skipped"}
    assert "runs once, at 03:00" in shown["clock_changes"][0]["text"]
    assert shown["warnings"] == []


def test_the_preview_agrees_with_the_schedule_and_its_mirror(world):
    schedule = world.create(cron="20 */6 * * *", timezone="Australia/Lord_Howe")

    shown = world.api("POST", "schedules/preview", {"cron": "20 */6 * * *", "timezone": "Australia/Lord_Howe"})

    mirror = temporal.describe_mirror(install_id=world.install_id, schedule_id=uuid.UUID(schedule["id"]))
    fires = [at.isoformat().replace("+00:00", "Z") for at in mirror.info.next_action_times[:5]]
    assert [run["utc"] for run in shown["next_runs"]] == fires
    assert schedule["next_run_at"] == fires[0]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"cron": "99 * * * *"}, "cron"),
        ({"cron": "* * * * *"}, "cron"),
        ({"cron": "0 4 * * *", "timezone": "Mars"}, "timezone"),
        ({"cron": "0 4 * * *", "count": 51}, "count"),
        ({"cron": "0 4 * * *", "count": 0}, "count"),
        ({"cron": "0 4 * * *", "count": True}, "count"),
        ({"cron": "0 4 * * *", "count": "5"}, "count"),
        ({"cron": "0 4 * * *", "after": "yesterday"}, "after"),
        ({"cron": "0 4 * * *", "after": "2026-01-01T00:00:00"}, "after"),
        ({"cron": "0 4 * * *", "after": "9999-12-31T23:59:59Z"}, "after"),
        ({"cron": "0 4 * * *", "after": "0001-01-01T00:00:00+14:00"}, "after"),
        ({}, "cron"),
    ],
)
def test_a_preview_of_bad_input_names_its_member(world, body, member):
    assert member in world.api("POST", "schedules/preview", body, expect=400)["fields"]


def test_the_preview_warns_of_runs_that_take_longer_than_the_gap(world, worker, fake_runner):
    schedule = world.create()
    run = world.finished_run(world.run_now(schedule)["id"])
    ScheduleRun.objects.filter(id=run["id"]).update(started_at=datetime.now(UTC) - timedelta(minutes=20))

    shown = world.api("POST", "schedules/preview", {"cron": "*/7 * * * *", "schedule_id": schedule["id"]}, expect=400)
    assert "Cron too frequent" in shown["fields"]["cron"]
    shown = world.api("POST", "schedules/preview", {"cron": "*/25 * * * *", "schedule_id": schedule["id"]}, expect=200)

    assert [warning["code"] for warning in shown["warnings"]] == [
        "busy_minute",
        "uneven_minutes",
        "runs_longer_than_gap",
    ]
    world.api("POST", "schedules/preview", {"cron": "0 4 * * *", "schedule_id": str(uuid.uuid4())}, expect=404)


def test_too_many_schedules_and_a_taken_name_are_conflicts(world, settings):
    settings.SCHEDULER_MAX_PER_INSTALL = 2
    world.create(name="a")
    body = {"endpoint": f"POST {world.path}", "cron": DAILY}

    taken = world.api("POST", "schedules", body | {"name": "a"}, expect=409)
    assert (taken["code"], set(taken["fields"])) == ("name_in_use", {"name"})
    world.create(name="b")
    assert world.api("POST", "schedules", body, expect=409)["code"] == "too_many_schedules"


def test_a_viewer_reads_and_does_not_write(world):
    schedule = world.create()
    path = f"schedules/{schedule['id']}"

    world.api("GET", path, role=Role.VIEWER, expect=200)
    for method, address, body in (
        ("POST", "schedules", {}),
        ("PATCH", path, {}),
        ("DELETE", path, None),
        ("POST", f"{path}/run-now", {}),
    ):
        assert world.api(method, address, body, role=Role.VIEWER, expect=403)["code"] == "permission_denied"


def test_another_tenants_objects_are_as_unknown_as_none(world, other_world):
    theirs = other_world.create()
    run = other_world.run_now(theirs)
    unknown = world.api("GET", f"schedules/{uuid.uuid4()}", expect=404)

    assert world.api("GET", f"schedules/{theirs['id']}", expect=404) == unknown
    assert world.api("PATCH", f"schedules/{theirs['id']}", {"name": "x"}, expect=404) == unknown
    world.api("DELETE", f"schedules/{theirs['id']}", expect=404)
    world.api("POST", f"schedules/{theirs['id']}/run-now", {}, expect=404)
    world.api("GET", f"schedules/{theirs['id']}/runs", expect=404)
    world.api("GET", f"runs/{run['id']}", expect=404)
    assert world.api("GET", "schedules", ref=other_world.install_id, expect=404) == world.api(
        "GET", "schedules", ref=uuid.uuid4(), expect=404
    )
    foreign_endpoint = other_world.api("GET", "endpoints")["results"][0]["id"]
    answer = world.api("POST", "schedules", {"endpoint_id": foreign_endpoint, "cron": DAILY}, expect=400)
    assert "endpoint_id" in answer["fields"]


@pytest.mark.parametrize("key", ["", "nonsense", "esk_x_y", "esk_" + "0" * 32 + "_secret"])
def test_a_wrong_key_is_401(world, key):
    response = world.client.get(
        f"/api/extensions/{world.install_id}/schedules", headers={"authorization": f"Api-Key {key}"}
    )

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Api-Key"
    assert response.json()["code"] == "not_authenticated"


def test_a_key_ends_when_it_is_revoked_or_expires(world):
    key, text = api_keys.create_key(tenant_id=world.tenant_id, name="k", role=Role.VIEWER, actor=ACTOR)
    world.api("GET", "schedules", key=text, expect=200)
    assert ApiKey.objects.get(id=key.id).last_used_at is not None
    api_keys.revoke_key(tenant_id=world.tenant_id, key_id=key.id, actor=ACTOR)
    world.api("GET", "schedules", key=text, expect=401)
    row, expired = api_keys.create_key(tenant_id=world.tenant_id, name="k", role=Role.VIEWER, actor=ACTOR)
    ApiKey.objects.filter(id=row.id).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    world.api("GET", "schedules", key=expired, expect=401)


def test_a_key_is_stored_as_a_digest_only(world):
    key, text = api_keys.create_key(tenant_id=world.tenant_id, name="k", role=Role.VIEWER, actor=ACTOR)

    stored = str(ApiKey.objects.filter(id=key.id).values().get()) + str(
        list(AuditEvent.objects.filter(subject_id=key.id).values())
    )
    assert text.split("_", 2)[2] not in stored


def member(world, role, *, name):
    user = get_user_model().objects.create_user(f"{name}-{world.tenant_id.hex[:8]}", password="a long password")
    TenantMembership.objects.create(tenant_id=world.tenant_id, user=user, role=role)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client, user


def test_a_session_works_within_its_memberships_and_needs_the_csrf_token(world, other_world):
    client, user = member(world, Role.ADMINISTRATOR, name="anna")
    address = f"/api/extensions/{world.install_id}/schedules"
    assert client.get(address).status_code == 200
    assert client.get(f"/api/extensions/{other_world.install_id}/schedules").status_code == 404
    body = {"endpoint": f"POST {world.path}", "cron": DAILY}
    assert client.post(address, body, content_type="application/json").status_code == 403
    client.get("/admin/login/")
    token = client.cookies["csrftoken"].value
    made = client.post(address, body, content_type="application/json", headers={"x-csrftoken": token})
    assert made.status_code == 201
    assert AuditEvent.objects.get(subject_id=made.json()["id"]).actor == user.username

    TenantMembership.objects.filter(user=user).update(is_active=False)
    assert client.get(address).status_code == 404


def test_nobody_is_401(world):
    assert Client().get(f"/api/extensions/{world.install_id}/schedules").status_code == 401


def test_an_unknown_address_and_method_have_the_error_body(world):
    response = world.client.get("/api/nowhere")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"
    assert world.api("PUT", "schedules", {}, expect=405)["code"] == "method_not_allowed"


def test_a_database_that_is_away_is_503_and_no_stack(world):
    key = world.key()
    original = connection.settings_dict["OPTIONS"]["host"]
    connection.close()
    connection.close_pool()
    connection.settings_dict["OPTIONS"] |= {"host": "/nowhere"}
    connection.settings_dict["OPTIONS"]["pool"]["timeout"] = 0.2
    try:
        body = world.api("GET", "schedules", key=key, expect=503)
        host = world.host("list", expect=503)
    finally:
        connection.close()
        connection.close_pool()
        connection.settings_dict["OPTIONS"] |= {"host": original}
        connection.settings_dict["OPTIONS"]["pool"]["timeout"] = 5

    assert body["code"] == "dependency_unavailable"
    assert set(host) == {"error"}
    world.api("GET", "schedules", expect=200)
