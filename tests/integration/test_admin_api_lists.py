"""Filters, orders and pages of the admin API's lists, creates that are safe to repeat, and switching everything off."""

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from schedules.models import AuditEvent, Schedule, ScheduleRun
from tests.support.expressions import DAILY


def names_of(answer):
    return [schedule["name"] for schedule in answer["results"]]


def test_schedules_are_filtered_searched_and_ordered(world):
    for name, enabled, endpoint in (
        ("Nightly report", True, f"POST {world.path}"),
        ("Hourly sync", False, f"POST {world.path}"),
        ("Status", True, f"GET {world.path}/status"),
    ):
        world.create(sync=False, name=name, enabled=enabled, endpoint=endpoint)
    Schedule.objects.filter(tenant_id=world.tenant_id, name="Status").update(last_run_status="failed")

    assert names_of(world.api("GET", "schedules?enabled=false")) == ["Hourly sync"]
    assert names_of(world.api("GET", "schedules?enabled=true&search=REPORT")) == ["Nightly report"]
    assert names_of(world.api("GET", "schedules?search=status")) == ["Status"]
    assert names_of(world.api("GET", f"schedules?endpoint={world.path}")) == ["Nightly report", "Hourly sync"]
    assert names_of(world.api("GET", "schedules?last_run_status=failed")) == ["Status"]
    assert names_of(world.api("GET", "schedules?order=-created_at")) == ["Status", "Hourly sync", "Nightly report"]


@pytest.mark.parametrize(
    ("query", "member"),
    [
        ("enabled=perhaps", "enabled"),
        ("last_run_status=done", "last_run_status"),
        ("order=payload", "order"),
        ("search=" + "x" * 200, "search"),
    ],
)
def test_a_wrong_query_says_where(world, query, member):
    assert list(world.api("GET", f"schedules?{query}", expect=400)["fields"]) == [member]


def test_runs_of_a_schedule_and_of_an_install_are_filtered(world):
    schedule, other = world.create(sync=False), world.create(sync=False)
    now = datetime.now(UTC).replace(microsecond=0)
    for number, (of, status, trigger) in enumerate(
        [(schedule, "succeeded", "schedule"), (schedule, "failed", "run_now"), (other, "missed", "schedule")]
    ):
        ScheduleRun.objects.create(
            id=uuid.uuid4(),
            tenant_id=world.tenant_id,
            install_id=world.install_id,
            schedule_id=of["id"],
            trigger=trigger,
            slot=now - timedelta(hours=number),
            status=status,
            finished_at=now,
        )

    def statuses(path):
        return [run["status"] for run in world.api("GET", path, expect=200)["results"]]

    assert statuses("runs") == ["succeeded", "failed", "missed"]
    assert statuses("runs?order=slot") == ["missed", "failed", "succeeded"]
    assert statuses("runs?status=failed&status=missed") == ["failed", "missed"]
    assert statuses("runs?trigger=run_now") == ["failed"]
    since = (now - timedelta(minutes=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert statuses(f"runs?slot_from={since}") == ["succeeded", "failed"]
    assert statuses(f"runs?slot_until={since}") == ["missed"]
    assert statuses(f"schedules/{schedule['id']}/runs?status=succeeded") == ["succeeded"]
    for wrong in ("status=done", "trigger=x", "slot_from=yesterday", "order=status"):
        world.api("GET", f"runs?{wrong}", expect=400)


BODY = {"cron": DAILY, "name": "Once"}


def test_a_create_under_a_key_is_made_once(world):
    body = BODY | {"endpoint": f"POST {world.path}"}

    first = world.api("POST", "schedules", body, expect=201, idempotency_key="k")
    again = world.api("POST", "schedules", dict(reversed(body.items())), expect=201, idempotency_key="k")
    other = world.api("POST", "schedules", body | {"name": "Other"}, expect=409, idempotency_key="k")

    assert first == again
    assert "another body" in other["message"]
    assert Schedule.objects.filter(tenant_id=world.tenant_id).count() == 1
    world.api("DELETE", f"schedules/{first['id']}", expect=204)
    assert world.api("POST", "schedules", body, expect=201, idempotency_key="k") == first
    assert not Schedule.objects.filter(tenant_id=world.tenant_id).exists()
    world.api("POST", "schedules", body, expect=400, idempotency_key="")
    world.api("POST", "schedules", body, expect=400, idempotency_key="x" * 256)


def test_a_refused_create_leaves_its_key_free(world):
    body = BODY | {"endpoint": f"POST {world.path}"}
    world.api("POST", "schedules", body | {"cron": "* * * * *"}, expect=400, idempotency_key="k")

    world.api("POST", "schedules", body, expect=201, idempotency_key="k")


def test_keys_of_tenants_are_their_own(world, other_world):
    first = world.api("POST", "schedules", BODY | {"endpoint": f"POST {world.path}"}, expect=201, idempotency_key="k")
    body = BODY | {"endpoint": f"POST {other_world.path}"}
    second = other_world.api("POST", "schedules", body, expect=201, idempotency_key="k")

    assert first["id"] != second["id"]


def test_the_same_create_many_times_at_once_makes_one_schedule(world):
    body, answers = BODY | {"endpoint": f"POST {world.path}"}, []
    world.key()

    def create():
        try:
            answers.append(world.api("POST", "schedules", body, idempotency_key="k")["id"])
        finally:
            connection.close()

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_everything_is_switched_off_at_once(world):
    enabled = [world.create(sync=False) for _ in range(3)]
    world.create(sync=False, enabled=False)

    answer = world.api("POST", "schedules/disable-all", {}, expect=200)

    assert answer["disabled"] == 3
    assert set(answer["schedule_ids"]) == {schedule["id"] for schedule in enabled}
    assert not Schedule.objects.filter(tenant_id=world.tenant_id, enabled=True).exists()
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, action="schedule.updated").count() == 3
    assert world.api("POST", "schedules/disable-all", {}, expect=200)["disabled"] == 0
    world.api("POST", "schedules/disable-all", {}, role="viewer", expect=403)
