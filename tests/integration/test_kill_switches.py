"""What operators stop at once: a tenant, an extension, a version, everything; and what becomes of its runs."""

import io
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from schedules import convergence
from schedules.models import AuditEvent, KillSwitch, ScheduleRun
from tests.support.attempts import claim_slot
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually


@pytest.fixture
def switched(world):
    """Releases whatever a test has engaged: a switch can concern every other test."""
    yield world
    KillSwitch.objects.filter(reason="tests").delete()


def command(*arguments, **options):
    out = io.StringIO()
    call_command("kill_switch", *arguments, stdout=out, **options)
    return out.getvalue().strip()


def names_of(world):
    return {
        "tenant": str(world.tenant_id),
        "extension": f"{world.publisher}.reports",
        "version": f"{world.publisher}.reports@1.0.0",
    }


@pytest.mark.parametrize("scope", ["tenant", "extension", "version"])
def test_no_run_begins_from_the_next_claim_on_and_the_row_says_why(switched, worker, fake_runner, scope):
    schedule = switched.create()
    run = switched.queued_run(schedule)
    said = command("engage", scope, names_of(switched)[scope], reason="tests")
    assert said.startswith("Stopped: ")
    assert "by " in said
    assert said.endswith(": tests")

    convergence.start(ScheduleRun.objects.get(id=run.id))

    ended = switched.finished_run(run.id)
    assert (ended["status"], ended["reason"]) == ("skipped_disabled", "stopped by an operator: tests")
    assert switched.run_now(schedule, expect=409)["code"] == "stopped"
    assert not fake_runner.calls[switched.path]

    assert command("release", scope, names_of(switched)[scope]).startswith("Runs again: ")
    assert switched.finished_run(switched.run_now(schedule)["id"])["status"] == "succeeded"


def test_a_run_that_waits_for_another_attempt_makes_none(switched, worker, fake_runner):
    fake_runner.script(switched.path, answers(503))
    schedule = switched.create(retry_first_delay_seconds=1)
    run = switched.run_now(schedule)
    fake_runner.wait_for_calls(switched.path, 1)
    command("engage", "tenant", str(switched.tenant_id), reason="tests")

    ended = switched.finished_run(run["id"])

    assert (ended["status"], ended["reason"]) == ("cancelled", "stopped by an operator: tests")
    assert len(fake_runner.calls[switched.path]) <= 2


def test_a_switch_on_a_version_stops_the_runs_that_began_with_it_and_no_others(switched, worker, fake_runner):
    switched.publish("2.0.0", content_hash="b" * 64)
    fake_runner.script(switched.path, answers(503))
    old = switched.run_now(switched.create(retry_first_delay_seconds=2))
    eventually(lambda: ScheduleRun.objects.get(id=old["id"]).attempt_log)
    switched.put_install(version="2.0.0")
    command("engage", "version", f"{switched.publisher}.reports@1.0.0", reason="tests")

    ended = switched.finished_run(old["id"])

    assert (ended["status"], ended["reason"]) == ("cancelled", "stopped by an operator: tests")
    fake_runner.script(switched.path, answers())
    new = switched.finished_run(switched.run_now(switched.create())["id"])
    assert (new["status"], new["version"]) == ("succeeded", "2.0.0")


def test_a_call_that_is_under_way_is_left_to_its_end(switched, worker, fake_runner):
    gate = threading.Event()
    fake_runner.script(switched.path, hangs(gate))
    run = switched.run_now(switched.create())
    fake_runner.wait_for_calls(switched.path, 1)
    command("engage", "extension", str(switched.registry_id), reason="tests")
    gate.set()

    assert switched.finished_run(run["id"])["status"] == "succeeded"


def test_it_needs_no_temporal(switched, temporal_proxy):
    temporal_proxy.down()
    try:
        command("engage", "tenant", str(switched.tenant_id), reason="tests")
        (stopped,) = [
            item["stopped"]
            for item in switched.tenant_api("GET", "extensions", expect=200)["results"]
            if item["id"] == str(switched.install_id)
        ]
        assert stopped["reason"] == "tests"
        command("release", "tenant", str(switched.tenant_id))
    finally:
        temporal_proxy.up()


def test_a_repeat_keeps_the_first_reason_and_the_trail_has_both_ends(switched):
    command("engage", "tenant", str(switched.tenant_id), reason="tests")
    assert "tests" in command("engage", "tenant", str(switched.tenant_id), reason="another")
    assert "tests" in command("list")
    command("release", "tenant", str(switched.tenant_id))

    events = AuditEvent.objects.filter(tenant_id=switched.tenant_id, subject_type="kill_switch").order_by("id")
    assert [event.action for event in events] == ["kill_switch.engaged", "kill_switch.released"]
    assert events[0].after["reason"] == "tests"
    with pytest.raises(CommandError, match="It is not stopped"):
        command("release", "tenant", str(switched.tenant_id))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("engage",), "Say what"),
        (("engage", "tenant", "nobody"), "Tenant not found"),
        (("engage", "tenant"), "name the tenant"),
        (("engage", "extension", "no.such"), "Extension not found"),
        (("engage", "version", "no.such@1"), "Extension not found"),
        (("engage", "version", "no-at-sign"), "publisher.name@version"),
        (("engage", "platform", "all"), "the whole platform has no name"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(database, arguments, said):
    with pytest.raises(CommandError, match=said):
        command(*arguments, reason="tests")


@pytest.mark.parametrize("reason", ["", "   ", "x" * 201, "a\nb"])
def test_a_reason_is_needed_and_fits(world, reason):
    with pytest.raises(CommandError, match=r"reason|say why"):
        command("engage", "tenant", str(world.tenant_id), reason=reason)
    assert not KillSwitch.objects.filter(target_id=world.tenant_id).exists()


def test_operators_have_it_by_session_with_its_csrf_token(switched):
    user = get_user_model().objects.create_superuser(f"operator-{uuid.uuid4()}", password="x")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    body = {"scope": "version", "target": names_of(switched)["version"], "reason": "tests"}
    assert client.post("/api/kill-switches", body, content_type="application/json").status_code == 403
    client.get("/admin/")
    token = {"X-CSRFToken": client.cookies["csrftoken"].value}

    made = client.post("/api/kill-switches", body, content_type="application/json", headers=token)

    assert made.status_code == 201, made.content
    assert made.json() in client.get("/api/kill-switches").json()["results"]
    assert (made.json()["actor"], made.json()["target"]) == (user.username, f"{switched.publisher}.reports 1.0.0")
    assert made.json() in client.get("/api/status").json()["kill_switches"]
    address = f"/api/kill-switches/{made.json()['id']}"
    assert client.delete(address, headers=token).status_code == 204
    assert client.delete(address, headers=token).status_code == 404


def test_a_version_that_is_stopped_is_not_deleted(switched):
    switched.publish("2.0.0", content_hash="b" * 64)
    command("engage", "version", f"{switched.publisher}.reports@2.0.0", reason="tests")

    refused = switched.registry("DELETE", f"extensions/{switched.registry_id}/versions/2.0.0", expect=409)

    assert "kill switch" in refused["message"]
    command("release", "version", f"{switched.publisher}.reports@2.0.0")
    switched.registry("DELETE", f"extensions/{switched.registry_id}/versions/2.0.0")


@pytest.mark.usefixtures("nobody_works")
def test_a_slot_that_comes_meanwhile_has_a_run_that_says_so(switched):
    schedule = switched.create(cron="*/5 * * * *", timezone="UTC")
    now = datetime.now(UTC)
    slot = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
    switched.owe_since(schedule, slot - timedelta(seconds=1))
    command("engage", "tenant", str(switched.tenant_id), reason="tests")

    claim = claim_slot(switched, schedule, slot)

    assert (claim.status, claim.reason) == ("skipped_disabled", "stopped by an operator: tests")
    run = next(run for run in switched.runs(schedule) if run.slot == slot)
    assert run.reason == "stopped by an operator: tests"
