"""The host API, as a deployed runner calls it."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from schedules import metrics
from schedules.models import AuditEvent, RateWindowEntry, Schedule
from tests.support.expressions import DAILY
from tests.support.threads import at_once
from tests.support.waiting import eventually


@pytest.fixture
def unlimited(settings):
    settings.SCHEDULER_HOST_API_WRITES_PER_MINUTE = 1000


def create(world, **members):
    body = {"endpoint": f"POST {world.path}", "cron": DAILY} | members
    return world.host("create", **body)


def test_an_extension_sets_up_its_own_schedules(world):
    endpoints = world.host("getEndpoints", expect=200)["endpoints"]
    assert {"id", "method", "path", "handler", "schedulable"} == set(endpoints[0])
    assert world.host("list", expect=200) == {"schedules": []}

    made = create(world, name="Nightly", timezone="America/New_York", payload={"a": [1]})
    assert made["success"] is True

    world.synced({"id": made["scheduleId"]})
    (info,) = world.host("list", expect=200)["schedules"]
    assert info == world.host("get", scheduleId=made["scheduleId"], expect=200)["schedule"]
    assert info.pop("createdAt").endswith("Z")
    assert info.pop("nextRunAt").endswith("Z")
    assert info.pop("syncState") in {"synced", "pending"}
    assert info == {
        "id": made["scheduleId"],
        "endpointPath": world.path,
        "endpointMethod": "POST",
        "name": "Nightly",
        "cron": DAILY,
        "timezone": "America/New_York",
        "enabled": True,
        "payload": {"a": [1]},
        "lastRunAt": None,
        "lastRunStatus": None,
        "lastError": None,
    }
    updated = world.host("update", scheduleId=made["scheduleId"], name=None, payload="", enabled=False, expect=200)
    assert updated == {"success": True}
    info = world.host("get", scheduleId=made["scheduleId"])["schedule"]
    assert (info["name"], info["payload"], info["enabled"], info["nextRunAt"]) == (None, None, False, None)
    assert world.host("delete", scheduleId=made["scheduleId"], expect=200) == {"success": True}
    assert world.host("get", scheduleId=made["scheduleId"], expect=200) == {"schedule": None}
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, source="host_api").count() == 3


def test_unset_members_may_be_null(world):
    unset = dict.fromkeys(("scheduleId", "endpoint", "cron", "timezone", "enabled", "name", "payload"))
    assert world.host("list", **unset, expect=200) == {"schedules": []}

    made = create(world, timezone=None, enabled=None, name=None, payload=None)

    assert made["success"]
    assert world.host("update", scheduleId=made["scheduleId"], cron=None, enabled=None, expect=200)["success"]
    info = world.host("get", scheduleId=made["scheduleId"])["schedule"]
    assert (info["cron"], info["enabled"], info["timezone"]) == (DAILY, True, "Europe/Berlin")


def test_any_content_type_is_read_as_json(world):
    for content_type in ("text/plain", "application/octet-stream", ""):
        response = world.client.post(
            f"/api/internal/ext-scheduler/install/{world.install_id}",
            b'{"operation": "list"}',
            content_type=content_type,
            headers={"x-runner-auth": "runner-token-in-use", "accept": "text/html"},
        )
        assert response.status_code == 200, (content_type, response.content)


def test_names_may_hold_whatever_people_write(world):
    for name in ("Rapport\u00a0: été", "family 👨\u200d👩", "تقرير"):
        assert create(world, name=name)["success"], name


def test_a_body_beyond_all_use_is_refused_in_json(world):
    answer = world.host("create", payload={"k": "x" * 3_000_000}, expect=413)

    assert set(answer) == {"error"}


def test_the_tenants_zone_is_the_default(world):
    create(world)

    assert world.host("list")["schedules"][0]["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    ("members", "member", "message"),
    [
        ({"endpoint": "POST /nowhere"}, "endpoint", "Endpoint not found or not schedulable"),
        ({"endpoint": "{path}/both"}, "endpoint", "ambiguous"),
        ({"endpoint": "{path}/half"}, "endpoint", "ambiguous"),
        ({"endpoint": "POST {path}/setup"}, "endpoint", "Endpoint not found or not schedulable"),
        ({"endpoint": "DELETE {path}/items/:id"}, "endpoint", "Endpoint not found or not schedulable"),
        ({"endpoint": "BREW {path}"}, "endpoint", "Endpoint not found or not schedulable"),
        ({"endpoint": ""}, "endpoint", "Endpoint not found or not schedulable"),
        ({"cron": "*/2 * * * *"}, "cron", "Cron too frequent"),
        ({"cron": "* 9 * * *"}, "cron", "Cron too frequent"),
        ({"cron": "99 * * * *"}, "cron", "minute: 99 is outside 0-59"),
        ({"cron": "0 0 30 2 *"}, "cron", "never"),
        ({"cron": ""}, "cron", "write five fields"),
        ({"timezone": "Mars/Olympus"}, "timezone", "not an IANA time zone"),
        ({"timezone": "Z" * 65}, "timezone", "at most 64"),
        ({"name": "n" * 129}, "name", "at most 128"),
        ({"name": "a\x00b"}, "name", "control characters"),
        ({"payload": 7}, "payload", "object or array"),
        ({"payload": {"k": "x" * 102_400}}, "payload", "at most 102400"),
        ({"payload": {"k": "\x00"}}, "payload", "NUL"),
    ],
)
def test_a_refusal_is_an_answer_that_names_the_field(world, members, member, message):
    members = {
        name: value.replace("{path}", world.path) if isinstance(value, str) else value
        for name, value in members.items()
    }

    answer = world.host("create", **({"endpoint": f"POST {world.path}", "cron": DAILY} | members), expect=200)

    assert answer["success"] is False
    assert message in answer["fieldErrors"][member]
    assert message in answer["error"]
    assert list(answer["fieldErrors"]) == [member]


def test_all_wrong_fields_are_named_at_once(world):
    answer = world.host("create", endpoint="POST /x", cron="x", timezone="x", name="\x01", payload=1, expect=200)

    assert set(answer["fieldErrors"]) == {"endpoint", "cron", "timezone", "name", "payload"}


def test_a_name_in_use_is_refused(world):
    create(world, name="Nightly")

    answer = create(world, name="Nightly")

    assert answer["success"] is False
    assert answer["error"] == "Schedule name already in use"
    assert "name" in answer["fieldErrors"]


def test_unknown_schedules_are_refused_and_foreign_ones_are_unknown(world, other_world):
    foreign = create(other_world)["scheduleId"]
    for schedule_id in (str(uuid.uuid4()), foreign, "nonsense"):
        for operation in ("update", "delete"):
            answer = world.host(operation, scheduleId=schedule_id, expect=200)
            assert answer == {"success": False, "error": "Schedule not found", "fieldErrors": {}}
        assert world.host("get", scheduleId=schedule_id, expect=200) == {"schedule": None}
    assert other_world.host("get", scheduleId=foreign)["schedule"]["id"] == foreign


def test_a_path_alone_is_enough_where_it_is_unambiguous(world):
    assert create(world, endpoint=f"{world.path}/status")["success"]
    assert create(world, endpoint=f"post  /{world.path}")["success"]

    methods = [info["endpointMethod"] for info in world.host("list")["schedules"]]
    assert methods == ["GET", "POST"]


@pytest.mark.parametrize("token", ["", "wrong", "runner-token-in-us", "registry-token-in-use"])
def test_a_wrong_token_is_401(world, token):
    assert set(world.host("list", token=token, expect=401)) == {"error"}


def test_every_configured_token_counts_and_none_means_nobody(world, settings):
    world.host("list", token="runner-token-of-yesterday", expect=200)
    settings.RUNNER_SERVICE_TOKENS = ()
    world.host("list", token="", expect=401)


def test_an_unknown_install_is_404_and_an_ungranted_one_403(world):
    world.host("list", install_id=uuid.uuid4(), expect=404)
    world.host("list", install_id="nonsense", expect=404)
    world.put_install(granted_caps=["cap:other"])
    world.host("list", expect=403)
    world.put_install(granted_caps=[" Cap:Scheduler.Manage "])
    world.host("list", expect=200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"list"',
        b'{"operation": "runNow"}',
        b'{"operation": ["list"]}',
        b'{"operation": "create", "cron": 5}',
        b'{"operation": "create", "enabled": "yes"}',
        b'{"operation": "create", "enabled": 1}',
        b'{"operation": "create", "name": {}}',
        b'{"operation": "update"}',
        b'{"operation": "delete", "scheduleId": null}',
        b'{"operation": "create", "payload": {"a": NaN}}',
        b'{"operation": "list", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_what_is_no_operation_is_400(world, body):
    response = world.client.post(
        f"/api/internal/ext-scheduler/install/{world.install_id}",
        body,
        content_type="application/json",
        headers={"x-runner-auth": "runner-token-in-use"},
    )

    assert response.status_code == 400, response.content
    assert set(response.json()) == {"error"}


def test_a_disabled_install_may_list_and_delete_but_not_create_or_enable(world):
    made = create(world, enabled=False)["scheduleId"]
    world.put_install(is_enabled=False)

    assert create(world)["success"] is False
    assert world.host("update", scheduleId=made, enabled=True)["success"] is False
    assert world.host("update", scheduleId=made, name="renamed")["success"] is True
    assert len(world.host("list", expect=200)["schedules"]) == 1
    assert world.host("delete", scheduleId=made)["success"] is True


def test_writes_are_limited_per_install_and_say_when_to_come_back(world):
    for _ in range(10):
        create(world)
    response = world.client.post(
        f"/api/internal/ext-scheduler/install/{world.install_id}",
        {"operation": "create", "endpoint": world.path, "cron": DAILY},
        content_type="application/json",
        headers={"x-runner-auth": "runner-token-in-use"},
    )

    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert len(world.host("list", expect=200)["schedules"]) == 10
    assert RateWindowEntry.objects.filter(tenant_id=world.tenant_id).count() == 10


def test_the_quota_is_exact_under_concurrent_creates(world, unlimited, settings):
    settings.SCHEDULER_MAX_PER_INSTALL = 5

    def one(_):
        try:
            return create(world)
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(one, range(24)))

    assert sum(answer["success"] for answer in answers) == 5
    assert Schedule.objects.filter(install_id=world.install_id).count() == 5
    refusals = {answer["error"] for answer in answers if not answer["success"]}
    assert refusals == {"Too many schedules: an install may have 5"}


def test_of_two_creates_with_one_name_exactly_one_succeeds(world, unlimited):
    def one(_):
        try:
            return create(world, name="the one")
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(one, range(8)))

    assert sum(answer["success"] for answer in answers) == 1


def test_list_costs_the_same_number_of_statements_whatever_there_is(world, unlimited):
    def statements():
        with CaptureQueriesContext(connection) as captured:
            world.host("list")
        return len(captured)

    create(world)
    few = statements()
    for _ in range(20):
        create(world)

    assert statements() == few


def test_every_call_is_counted_and_leaves_a_line(world, caplog):
    def count(operation, status):
        return metrics.HOST_API_CALLS.labels(operation=operation, status=status)._value.get()

    cases = [
        ("list", "200", {}),
        ("create", "refused", {"endpoint": f"POST {world.path}", "cron": "nonsense"}),
        ("create", "201", {"endpoint": f"POST {world.path}", "cron": DAILY}),
        ("update", "400", {"scheduleId": 7}),
    ]
    for operation, status, members in cases:
        before = count(operation, status)
        with caplog.at_level("INFO"):
            world.host(operation, **members)
        assert count(operation, status) == before + 1
    before = count("unknown", "400")
    world.host("explode")
    assert count("unknown", "400") == before + 1
    before = count("unknown", "401")
    world.host("list", token="wrong")
    assert count("unknown", "401") == before + 1
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    calls = [line for line in lines if line["event"] == "host_api.call"]
    assert [(line["operation"], line["status"]) for line in calls][:2] == [("list", "200"), ("create", "refused")]
    assert calls[1]["refused_members"] == ["cron"]
    assert calls[0]["install_id"] == str(world.install_id)


def test_the_last_place_goes_to_one_of_a_hundred(world, settings):
    settings.SCHEDULER_HOST_API_WRITES_PER_MINUTE = 1000
    for _ in range(49):
        world.host("create", endpoint=f"POST {world.path}", cron=DAILY, enabled=False, expect=201)

    asked = {"operation": "create", "endpoint": f"POST {world.path}", "cron": DAILY, "enabled": False}
    address = f"/api/internal/ext-scheduler/install/{world.install_id}"

    def ask():
        answer = world.client.post(address, asked, "application/json", headers={"x-runner-auth": "runner-token-in-use"})
        return answer if answer.status_code != 503 else None

    def create(_):
        # One whom the pool of connections kept waiting too long is told to come back, and does.
        answer = eventually(ask, seconds=40)
        assert answer.status_code in {200, 201}, answer.content
        return answer.json()

    answers = at_once(create, 100)

    assert [answer["success"] for answer in answers].count(True) == 1
    assert {answer["error"].split(":")[0] for answer in answers if not answer["success"]} == {"Too many schedules"}
    assert Schedule.objects.filter(tenant_id=world.tenant_id).count() == 50
