"""What both APIs do with requests that are odd, hostile, repeated or too many."""

import base64
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from schedules import api_keys, limits, metrics, queries
from schedules.models import AuditEvent, RateWindowEntry, Role, Schedule, TenantMembership
from tests.support.expressions import DAILY
from tests.support.threads import at_once
from tests.support.world import ACTOR, RUNNER_TOKEN


def sample(metric, **labels):
    return metric.labels(**labels)._value.get()


# --- limits: sliding and exact


@pytest.mark.parametrize(("limit", "door"), [(10, "host"), (5, "run_now")])
def test_of_many_calls_at_once_as_many_pass_as_the_limit_says(world, limit, door):
    schedule = world.create(sync=False)

    def call(number):
        if door == "host":
            return world.host("update", scheduleId=schedule["id"], payload={"n": number}).get("success", False)
        return "id" in world.run_now(schedule, expect=None)

    assert sum(at_once(call, 30)) == limit


def test_the_window_slides_and_retry_after_is_exact(world, settings):
    settings.SCHEDULER_HOST_API_WRITES_PER_MINUTE = 3
    schedule = world.create(sync=False)
    for number in range(3):
        assert world.host("update", scheduleId=schedule["id"], payload={"n": number}, expect=200)["success"]
    entries = list(RateWindowEntry.objects.filter(tenant_id=world.tenant_id).order_by("at"))
    now = datetime.now(UTC)
    for entry, age in zip(entries, (59.0, 40.0, 10.0), strict=True):
        RateWindowEntry.objects.filter(id=entry.id).update(at=now - timedelta(seconds=age))

    refused = host_response(world, "update", scheduleId=schedule["id"], payload={"n": 9})
    assert refused.status_code == 429
    assert refused["retry-after"] == "1"

    # The oldest leaves the window, one place is free, and the next one only when the second leaves.
    RateWindowEntry.objects.filter(id=entries[0].id).update(at=now - timedelta(seconds=60.5))
    assert world.host("update", scheduleId=schedule["id"], payload={"n": 10}, expect=200)["success"]
    refused = host_response(world, "update", scheduleId=schedule["id"], payload={"n": 11})
    assert refused.status_code == 429
    assert 18 <= int(refused["retry-after"]) <= 20


def test_a_malformed_write_takes_no_place(world):
    world.host("update", expect=400)
    world.host("create", cron=5, expect=400)

    assert not RateWindowEntry.objects.filter(tenant_id=world.tenant_id).exists()


def test_calls_of_a_window_that_is_over_are_forgotten(world):
    world.host("delete", scheduleId=str(uuid.uuid4()), expect=200)
    RateWindowEntry.objects.filter(tenant_id=world.tenant_id).update(at=datetime.now(UTC) - 2 * limits.WINDOW)

    world.host("delete", scheduleId=str(uuid.uuid4()), expect=200)

    assert RateWindowEntry.objects.filter(tenant_id=world.tenant_id).count() == 1


# --- statements


def test_a_create_costs_the_same_whatever_is_there(world):
    def cost():
        with CaptureQueriesContext(
            connection,
        ) as statements:
            world.host("create", endpoint=f"POST {world.path}", cron=DAILY, expect=201)
        return len(statements)

    few = [cost() for _ in range(2)][-1]
    for number in range(20):
        world.create(name=str(number), sync=False)
    assert cost() == few


def test_disabling_all_costs_the_same_for_one_and_for_many(world, other_world):
    costs = []
    for each, count in ((world, 1), (other_world, 12)):
        for _ in range(count):
            each.create(sync=False)
        with CaptureQueriesContext(connection) as statements:
            assert each.api("POST", "schedules/disable-all", expect=200)["disabled"] == count
        costs.append(len(statements))
        rows = Schedule.objects.filter(tenant_id=each.tenant_id)
        assert {(row.enabled, row.revision) for row in rows} == {(False, 2)}
        events = AuditEvent.objects.filter(tenant_id=each.tenant_id, action="schedule.updated")
        assert [event.after["enabled"] for event in events] == [False] * count
    assert costs[0] == costs[1]


# --- repeats


def test_a_run_now_key_stands_for_one_payload_and_true_is_not_one(world):
    schedule = world.create(sync=False)
    first = world.run_now(schedule, body={"payload": {"a": 1}}, idempotency_key="k")

    assert world.run_now(schedule, body={"payload": {"a": 1}}, idempotency_key="k")["id"] == first["id"]
    world.run_now(schedule, body={"payload": {"a": True}}, idempotency_key="k", expect=409)


def test_no_key_of_a_run_now_names_a_replay(world):
    schedule = world.create(sync=False)
    run = world.queued_run(schedule)
    world.api("POST", f"runs/{run.id}/cancel", expect=202)
    replay = world.api("POST", f"runs/{run.id}/replay", expect=202, idempotency_key="a")

    other = world.run_now(schedule, idempotency_key=f"replay/{run.id}/a")

    assert other["id"] != replay["id"]
    assert other["trigger"] == "run_now"


def test_the_same_key_at_once_makes_one_schedule(world):
    body = {"endpoint": f"POST {world.path}", "cron": DAILY}

    made = at_once(lambda _: world.api("POST", "schedules", body, expect=201, idempotency_key="k")["id"], 12)

    assert len(set(made)) == 1
    assert Schedule.objects.filter(tenant_id=world.tenant_id).count() == 1


# --- revisions


@pytest.mark.parametrize("given", ['"1"', '"7", "1"', "*", ' "1" '])
def test_a_revision_that_matches_lets_a_change_through(world, given):
    schedule = world.create(sync=False)
    world.api("PATCH", f"schedules/{schedule['id']}", {"payload": {"a": 1}}, expect=200, if_match=given)


@pytest.mark.parametrize("given", ['"2"', 'W/"1"', "1", "", '"1', '"one"'])
def test_a_revision_that_does_not_match_changes_nothing(world, given):
    schedule = world.create(sync=False)
    answer = world.api("PATCH", f"schedules/{schedule['id']}", {"payload": {"a": 1}}, expect=412, if_match=given)

    assert answer["data"] == {"revision": 1}
    assert Schedule.objects.get(id=schedule["id"]).payload is None


def test_answers_carry_the_revision_that_the_next_change_may_name(world):
    created = api_response(world, "POST", "schedules", {"endpoint": f"POST {world.path}", "cron": DAILY})
    assert created["ETag"] == '"1"'
    changed = api_response(world, "PATCH", f"schedules/{created.json()['id']}", {"cron": "0 5 * * *"})
    assert (changed["ETag"], changed.json()["revision"], changed.json()["cron"]) == ('"2"', 2, "0 5 * * *")


# --- who calls


def test_a_key_that_ends_makes_none_that_outlives_it(world):
    until = datetime.now(UTC) + timedelta(hours=1)
    _, key = api_keys.create_key(
        tenant_id=world.tenant_id, name="short", role=Role.ADMINISTRATOR, expires_at=until, actor=ACTOR
    )
    for later in ({}, {"expires_at": (until + timedelta(hours=1)).isoformat()}):
        answer = world.tenant_api("POST", "api-keys", {"name": "child"} | later, key=key, expect=400)
        assert "outlive" in answer["fields"]["expires_at"]
    sooner = (until - timedelta(minutes=1)).isoformat()
    world.tenant_api("POST", "api-keys", {"name": "child", "expires_at": sooner}, key=key, expect=201)


@pytest.mark.parametrize(
    "address", ["tenant", "stats", "notification-channels", "api-keys", "extensions", "audit-events"]
)
def test_an_operator_who_asks_for_an_unknown_tenant_is_told_so(world, address):
    operator = get_user_model().objects.create_superuser(f"op-{uuid.uuid4().hex[:8]}", password="x" * 16)
    client = Client()
    client.force_login(operator)

    assert client.get(f"/api/{address}?tenant_id={uuid.uuid4()}").status_code == 404
    assert client.get(f"/api/{address}?tenant_id={world.tenant_id}").status_code == 200
    assert client.get(f"/api/{address}").status_code == 400


def test_a_member_who_was_let_go_works_in_no_tenant(world):
    user = get_user_model().objects.create_user(f"gone-{uuid.uuid4().hex[:8]}", password="x" * 16)
    TenantMembership.objects.create(tenant_id=world.tenant_id, user=user, role=Role.ADMINISTRATOR, is_active=False)
    client = Client()
    client.force_login(user)

    answer = client.get("/api/tenant")

    assert answer.status_code == 403
    assert answer.json()["message"] == "You do not work in any tenant"


def test_lists_of_a_tenant_show_its_own_alone(world, other_world):
    world.create(sync=False)
    other_world.create(sync=False)

    (install,) = world.tenant_api("GET", "extensions", expect=200)["results"]
    assert (install["id"], install["name"]) == (str(world.install_id), world.extension_name)
    events = world.tenant_api("GET", "audit-events?page_size=200", expect=200)["results"]
    assert {"install.put", "schedule.created"} <= {event["action"] for event in events}
    assert str(other_world.install_id) not in str(events)
    about = world.tenant_api("GET", f"audit-events?subject_id={world.install_id}", expect=200)["results"]
    assert {event["subject_id"] for event in about} == {str(world.install_id)}
    assert world.tenant_api("GET", "notifications", expect=200)["results"] == []


# --- odd requests


@pytest.mark.parametrize(
    "address", ["tenant?foo=1", "api-keys?page_size=1", "stats?schedule_id=x", "extensions/{install}/endpoints?foo=1"]
)
def test_a_parameter_that_does_not_exist_is_refused(world, address):
    answer = world.tenant_api("GET", address.format(install=world.install_id), expect=400)
    assert "is not a parameter" in str(answer["fields"])


@pytest.mark.parametrize("position", ["2026-01-01", "nonsense", "2026-01-01T00:00:00", ""])
def test_a_made_up_cursor_is_bad_input(world, position):
    cursor = base64.b64encode(f"p={position}".encode()).decode()
    world.api("GET", f"schedules?cursor={cursor}", expect=400)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("POST {path}", 1), ("post  /{path}", 1), ("{path}", 1), ("GET {path}", 0), ("/nowhere", 0)],
)
def test_the_filter_by_endpoint_takes_what_a_create_takes(world, wanted, found):
    world.create(sync=False)
    rows = world.tenant_api(
        "GET", f"extensions/{world.install_id}/schedules?endpoint={wanted.format(path=world.path)}", expect=200
    )
    assert len(rows["results"]) == found


@pytest.mark.parametrize("address", ["schedules/disable-all", "runs/{run}/cancel", "runs/{run}/replay"])
def test_a_body_where_none_is_wanted_is_refused(world, address):
    run = world.run_now(world.create(sync=False))
    answer = world.api("POST", address.format(run=run["id"]), {"payload": {"x": 1}}, expect=400)
    assert answer["fields"] == {"payload": "is not a member of this request"}


def test_an_answer_is_json_whatever_is_accepted(world):
    for accept in ("text/html", "application/xml", "*/*;q=0"):
        world.api("GET", "schedules", expect=200, accept=accept)


def test_another_host_is_told_so_in_the_shape_of_errors(world, settings):
    settings.ALLOWED_HOSTS = ["scheduler.example"]
    answer = world.client.get("/api/tenant")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid"


def test_the_schema_is_only_read(world):
    for method in ("post", "put", "delete"):
        assert getattr(Client(enforce_csrf_checks=True), method)("/api/schema/").status_code == 405


# --- the host API's own


def host_response(world, operation, **members):
    return world.client.post(
        f"/api/internal/ext-scheduler/install/{world.install_id}",
        {"operation": operation, **members},
        content_type="application/json",
        headers={"x-runner-auth": RUNNER_TOKEN},
    )


def api_response(world, method, path, body):
    return getattr(world.client, method.lower())(
        f"/api/extensions/{world.install_id}/{path}",
        body,
        content_type="application/json",
        headers={"authorization": f"Api-Key {world.key()}"},
    )


def test_a_bug_is_counted_logged_and_told_in_the_runners_shape(world, monkeypatch, caplog):
    before = sample(metrics.HOST_API_CALLS, operation="list", status="500")
    monkeypatch.setattr(queries, "schedules_of", None)

    answer = host_response(world, "list")

    assert (answer.status_code, list(answer.json())) == (500, ["error"])
    assert sample(metrics.HOST_API_CALLS, operation="list", status="500") == before + 1
    (line,) = [record.msg for record in caplog.records if record.name == "schedules.api.host_views"]
    assert (line["event"], line["operation"], line["status"]) == ("host_api.call", "list", "500")


def test_nothing_but_post_is_answered(world):
    address = f"/api/internal/ext-scheduler/install/{world.install_id}"
    for method in ("get", "put", "patch", "delete", "options"):
        assert getattr(world.client, method)(address).status_code == 405
    assert list(world.client.post(f"{address}/").json()) == ["error"]


def test_a_refusal_names_the_member_that_the_wire_has(world):
    schedule = world.create(sync=False, enabled=False)
    Schedule.objects.filter(id=schedule["id"]).update(endpoint=None)

    answer = world.host("update", scheduleId=schedule["id"], enabled=True, expect=200)

    assert list(answer["fieldErrors"]) == ["endpoint"]


def test_the_admin_api_names_the_member_that_was_given(world):
    endpoints = world.api("GET", "endpoints", expect=200)["results"]
    setup = next(endpoint for endpoint in endpoints if not endpoint["schedulable"])

    answer = world.api("POST", "schedules", {"endpoint_id": setup["id"], "cron": DAILY}, expect=400)

    assert list(answer["fields"]) == ["endpoint_id"]
