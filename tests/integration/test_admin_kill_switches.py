"""Kill switches in the browser: operators engage and release them, everybody concerned reads why nothing runs."""

import pytest
from django.urls import reverse

from schedules import audit, kill_switches
from schedules.models import AuditEvent, KillScope, KillSwitch, ScheduleRun
from tests.support.people import page

ENGAGE = "/admin/operations/kill-switch/"


@pytest.fixture
def switched(world):
    """Releases whatever a test has engaged: a switch can concern every other test."""
    yield world
    KillSwitch.objects.filter(reason__startswith="Tests: ").delete()


def engage(world, scope=KillScope.TENANT, name=None, reason="Tests: storage is full"):
    target = kill_switches.find_target(scope=scope, name=name or str(world.tenant_id))
    return kill_switches.engage(target, reason=reason, actor=audit.Actor(audit.Source.COMMAND, "olga-at-the-console"))


def asking(scope, world):
    names = {"tenant": world.tenant_id, "extension": world.registry_id, "version": f"{world.publisher}.reports@1.0.0"}
    return {"scope": scope} | ({"target": str(names[scope])} if scope in names else {})


@pytest.mark.parametrize("scope", ["tenant", "extension", "version"])
def test_an_operator_stops_it_after_reading_what_will_happen_and_releases_it(operator, switched, scope):
    switched.create(sync=False)
    query = asking(scope, switched)

    asked = operator.get(ENGAGE, query).content.decode()
    assert "1 enabled schedule of 1 install in 1 tenant: they stop running" in asked
    address = f"{ENGAGE}?scope={scope}&target={query['target']}"
    for reason in ("", "x" * 201):
        assert "errorlist" in operator.post(address, {"reason": reason}).content.decode()
    assert not KillSwitch.objects.exists()
    told = operator.post(address, {"reason": "Tests: storage is full"}, follow=True).content.decode()
    assert f"Stopped: {scope} " in told
    switch = KillSwitch.objects.get()
    assert (switch.scope, switch.source, switch.actor) == (scope, "admin", operator.user.username)
    again = operator.post(address, {"reason": "Tests: another"}).content.decode()
    assert "Tests: storage is full" in again

    release = reverse("admin:release_kill_switch", args=[switch.id])
    assert "Tests: storage is full" in operator.get(release).content.decode()
    assert KillSwitch.objects.exists()
    assert "Released: " in operator.post(release, {"confirmed": "yes"}, follow=True).content.decode()
    assert not KillSwitch.objects.exists()
    assert "does not stand any more" in operator.post(release, {"confirmed": "yes"}, follow=True).content.decode()
    trail = AuditEvent.objects.filter(subject_id=switch.id).order_by("id").values_list("action", flat=True)
    assert list(trail) == ["kill_switch.engaged", "kill_switch.released"]


def test_the_question_before_everything_stops_has_the_numbers_of_all(operator, switched, other_world):
    asked = operator.get(ENGAGE, {"scope": "platform"}).content.decode()

    assert "Stop the whole platform?" in asked
    assert operator.get(ENGAGE, {"scope": "galaxy"}).status_code == 404
    missing = operator.get(ENGAGE, {"scope": "tenant", "target": "nobody"}, follow=True).content.decode()
    assert "Tenant not found" in missing


@pytest.mark.parametrize("scope", ["tenant", "extension", "version"])
def test_what_to_stop_is_found_by_name_and_by_id(operator, switched, other_world, scope):
    searched = {
        "tenant": ["Acme", str(switched.tenant_id)],
        "extension": [switched.publisher, f"{switched.publisher}.reports", str(switched.registry_id)],
        "version": [switched.publisher, f"{switched.publisher}.reports 1.0.0", str(switched.registry_id)],
    }
    for search in searched[scope]:
        found = operator.get(ENGAGE, {"scope": scope, "q": search}).content.decode()
        assert "?scope=" in found, search
    assert "Nothing fits" in operator.get(ENGAGE, {"scope": scope, "q": "no such thing\x00"}).content.decode()


def test_members_neither_engage_nor_release(administrator, switched):
    switch = engage(switched)
    release = reverse("admin:release_kill_switch", args=[switch.id])

    for answer in (
        administrator.get(ENGAGE, asking("tenant", switched)),
        administrator.post(f"{ENGAGE}?scope=tenant&target={switched.tenant_id}", {"reason": "Tests: mine"}),
        administrator.get(release),
        administrator.post(release, {"confirmed": "yes"}),
    ):
        assert answer.status_code == 403
    assert KillSwitch.objects.get().id == switch.id


def test_it_is_told_on_the_pages_below_it_and_nowhere_else(administrator, operator, switched, other_world):
    schedule = switched.create(sync=False)
    engage(switched)
    engage(other_world, reason="Tests: only for the others")

    for address in (
        "/admin/",
        reverse("admin:schedules_schedule_page", args=[schedule["id"]]),
        reverse("admin:schedules_extensioninstall_change", args=[switched.install_id]),
    ):
        mine, operators = (client.get(address).content.decode() for client in (administrator, operator))
        assert "Tests: storage is full" in mine
        assert "only for the others" not in mine
        assert "olga-at-the-console" not in mine
        assert "olga-at-the-console" in operators
        assert "/release/" not in mine
        assert "/release/" in operators


def test_what_cannot_be_run_is_told_in_words(administrator, switched):
    schedule = switched.create(sync=False)
    run = switched.queued_run(schedule)
    ScheduleRun.objects.filter(id=run.id).update(status="succeeded", finished_at="2026-01-01T00:00:00Z")
    engage(switched)

    act = reverse("admin:schedules_schedule_act", args=[schedule["id"]])
    refused = administrator.post(act, {"do": "run_now"}, follow=True)
    replay = reverse("admin:schedules_schedulerun_act", args=[run.id])
    again = administrator.post(replay, {"do": "replay"}, follow=True)
    listed = {"action": "run_now", "_selected_action": [schedule["id"]]}
    in_bulk = administrator.post(reverse("admin:schedules_schedule_changelist"), listed, follow=True)

    for answer in (refused, again, in_bulk):
        assert answer.status_code == 200
        assert "An operator has stopped it: Tests: storage is full" in answer.content.decode()
    assert ScheduleRun.objects.filter(schedule_id=schedule["id"]).count() == 1
    assert page(administrator, "schedulerun_change", run.id).status_code == 200
