"""Upgrades and the way back: shown beforehand, entirely or not at all, and undone where nobody interfered."""

import os
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F

from schedules import audit, installs, temporal, upgrades
from schedules.errors import RemapFailed
from schedules.models import AuditEvent, ExtensionInstall, Schedule
from schedules.remap import Change
from tests.support.expressions import DAILY
from tests.support.waiting import eventually

ACTOR = audit.Actor(audit.Source.SYSTEM, "tests")


def declare(*names, handler="main"):
    pairs = [name.split(" ") for name in names]
    return [{"method": method, "path": path, "handler": handler} for method, path in pairs]


@pytest.fixture
def upgrading(world):
    """An install with three endpoints, of which version 2 lacks one, may not schedule another and has a new one."""
    world.publish("1.1.0", endpoints=declare("POST /kept", "POST /gone", "POST /shut"), content_hash="b" * 64)
    two = [
        *declare("POST /kept", handler="kept"),
        *declare("POST /gone-elsewhere"),
        {"method": "POST", "path": "/shut", "schedulable": False},
    ]
    world.publish("2.0.0", endpoints=two, content_hash="c" * 64)
    world.put_install(version="1.1.0")
    world.kept, world.gone, world.shut = (
        world.create(name=name, endpoint=f"POST /{name}") for name in ("kept", "gone", "shut")
    )
    return world


def preview(world, version, **more):
    return world.api("POST", "upgrade/preview", {"version": version}, expect=200, **more)


def upgrade(world, version, *, expect=200, **members):
    body = {"registryId": str(world.registry_id), "version": version} | members
    return world.tenant_api("POST", "v1/extensions/update", body, expect=expect)


def shown(world, schedule):
    return world.api("GET", f"schedules/{schedule['id']}", expect=200)


def test_the_preview_says_what_would_happen_and_changes_nothing(upgrading):
    before = list(Schedule.objects.filter(install_id=upgrading.install_id).order_by("id").values())

    plan = preview(upgrading, "2.0.0")

    assert list(Schedule.objects.filter(install_id=upgrading.install_id).order_by("id").values()) == before
    assert (plan["from_version"], plan["to_version"], plan["can_apply"]) == ("1.1.0", "2.0.0", False)
    counts = {name: number for name, number in plan["counts"].items() if number}
    assert counts == {"remapped": 1, "missing": 1, "not_schedulable": 1, "blocking": 2}
    by_name = {item["name"]: item for item in plan["schedules"]}
    assert by_name["kept"]["will_call"] == "POST /kept"
    assert by_name["kept"]["next_run_at"]
    assert by_name["gone"]["will_call"] is None
    assert {"endpoint": "POST /gone-elsewhere", "ground": "same handler"} in by_name["gone"]["suggestions"]
    assert by_name["shut"]["reason"] == "the manifest says that it is not schedulable"


def test_a_blocked_upgrade_names_what_is_missing_and_changes_nothing(upgrading):
    answer = upgrade(upgrading, "2.0.0", expect=409)

    assert (answer["success"], answer["code"]) == (False, "SCHEDULE_REMAP_FAILED")
    missing = {item["scheduleId"]: (item["method"], item["path"]) for item in answer["missing"]}
    assert missing == {upgrading.gone["id"]: ("POST", "/gone"), upgrading.shut["id"]: ("POST", "/shut")}
    assert all(set(item) == {"scheduleId", "method", "path"} for item in answer["missing"])
    install = ExtensionInstall.objects.select_related("version").get(id=upgrading.install_id)
    assert install.version.version == "1.1.0"
    assert shown(upgrading, upgrading.kept)["endpoint_id"] == upgrading.kept["endpoint_id"]


def test_missing_ones_are_disabled_on_request_and_enabled_again_on_the_way_back(upgrading):
    off = upgrading.change(upgrading.shut, enabled=False)

    answer = upgrade(upgrading, "2.0.0", disableMissingSchedules=True)

    assert answer["disabledScheduleIds"] == [upgrading.gone["id"]]
    assert answer["counts"]["detached"] == 1
    detached = shown(upgrading, off)
    assert (detached["endpoint_id"], detached["revision"]) == (None, off["revision"] + 1)
    gone = shown(upgrading, upgrading.gone)
    assert (gone["enabled"], gone["endpoint_id"]) == (False, None)
    assert (gone["endpoint_method"], gone["endpoint_path"]) == ("POST", "/gone")
    assert gone["disabled_reason"] == "version 2.0.0 does not offer its endpoint: the version does not declare it"
    eventually(lambda: mirror(upgrading.gone).schedule.state.paused)

    plan = preview(upgrading, "1.1.0")
    assert {item["name"]: item["change"] for item in plan["schedules"]} == {
        "kept": "keep",
        "gone": "enable",
        "shut": "keep",
    }
    back = upgrade(upgrading, "1.1.0")

    assert back["enabledScheduleIds"] == [upgrading.gone["id"]]
    gone = shown(upgrading, upgrading.gone)
    assert (gone["enabled"], gone["disabled_reason"]) == (True, None)
    assert gone["endpoint_id"] == upgrading.gone["endpoint_id"]
    shut = shown(upgrading, off)
    assert (shut["enabled"], shut["endpoint_id"]) == (False, off["endpoint_id"])
    eventually(lambda: not mirror(upgrading.gone).schedule.state.paused)


def test_what_somebody_touched_meanwhile_stays_as_they_left_it(upgrading):
    upgrade(upgrading, "2.0.0", disableMissingSchedules=True)
    upgrading.api("PATCH", f"schedules/{upgrading.gone['id']}", {"name": "mine now"}, expect=200)

    back = upgrade(upgrading, "1.1.0")

    assert set(back["enabledScheduleIds"]) == {upgrading.shut["id"]}
    gone = shown(upgrading, upgrading.gone)
    assert (gone["enabled"], gone["endpoint_id"]) == (False, upgrading.gone["endpoint_id"])


@pytest.mark.parametrize("way", ["disable-all", "by itself"])
def test_what_a_person_disables_as_well_stays_disabled_on_the_way_back(upgrading, way):
    upgrade(upgrading, "2.0.0", disableMissingSchedules=True)
    if way == "disable-all":
        upgrading.api("POST", "schedules/disable-all", {}, expect=200)
    else:
        for schedule in (upgrading.gone, upgrading.shut):
            upgrading.api("PATCH", f"schedules/{schedule['id']}", {"enabled": False}, expect=200)

    assert upgrade(upgrading, "1.1.0")["enabledScheduleIds"] == []


def test_what_an_outage_has_left_owed_is_settled_before_the_upgrade_and_not_in_it(upgrading):
    upgrading.change(upgrading.gone, cron="*/5 * * * *", catch_up_policy="all")
    upgrading.owe_since(upgrading.gone, datetime.now(UTC) - timedelta(hours=20))

    upgrade(upgrading, "2.0.0", disableMissingSchedules=True)

    assert len(upgrading.runs(upgrading.gone)) >= 239
    assert shown(upgrading, upgrading.gone)["enabled"] is False


def test_what_was_disabled_does_not_block_the_upgrade_after_next(upgrading):
    upgrade(upgrading, "2.0.0", disableMissingSchedules=True)
    upgrading.publish("3.0.0", endpoints=declare("POST /kept"), content_hash="d" * 64)

    upgrade(upgrading, "3.0.0")
    back = upgrade(upgrading, "1.1.0")

    assert set(back["enabledScheduleIds"]) == {upgrading.gone["id"], upgrading.shut["id"]}


def test_a_remap_by_endpoint_and_by_id_resolves_what_is_missing(upgrading):
    answer = upgrade(
        upgrading,
        "2.0.0",
        remap={"POST /gone": "POST /gone-elsewhere", upgrading.shut["id"]: "POST /kept"},
    )

    assert answer["counts"]["remapped"] == 3  # the third has another handler
    gone, shut = shown(upgrading, upgrading.gone), shown(upgrading, upgrading.shut)
    assert (gone["endpoint_path"], gone["enabled"]) == ("/gone-elsewhere", True)
    assert shut["endpoint_path"] == "/kept"
    # Whoever has the schedule open learns of it.
    assert gone["revision"] == upgrading.gone["revision"] + 1
    assert shown(upgrading, upgrading.kept)["revision"] == upgrading.kept["revision"]


@pytest.mark.parametrize(
    ("remap_given", "said"),
    [
        ({"POST /gone": "POST /nowhere"}, "has no POST /nowhere"),
        ({"POST /gone": "POST /shut"}, "cannot be scheduled"),
        ({"POST /unheard-of": "POST /kept"}, "no schedule of the install"),
    ],
)
def test_a_remap_to_or_from_nowhere_names_its_member(upgrading, remap_given, said):
    answer = upgrade(upgrading, "2.0.0", remap=remap_given, disableMissingSchedules=True, expect=400)

    assert said in answer["fields"]["remap"]


def test_a_plan_that_was_shown_is_the_one_that_is_done(upgrading):
    plan = preview(upgrading, "2.0.0")

    answer = upgrade(upgrading, "2.0.0", planToken=plan["plan_token"], disableMissingSchedules=True)

    assert answer["counts"]["disabled"] == 2


@pytest.mark.parametrize("change", ["create", "delete", "disable", "rename", "move"])
def test_another_plan_than_was_shown_is_refused_with_the_new_one(upgrading, change):
    plan = preview(upgrading, "2.0.0")
    address = f"schedules/{upgrading.gone['id']}"
    if change == "create":
        upgrading.create(endpoint="POST /kept")
    elif change == "delete":
        upgrading.api("DELETE", address, expect=204)
    else:
        changes = {"disable": {"enabled": False}, "rename": {"name": "x"}, "move": {"endpoint": "POST /kept"}}
        upgrading.api("PATCH", address, changes[change], expect=200)
    events = AuditEvent.objects.filter(tenant_id=upgrading.tenant_id).count()

    answer = upgrade(upgrading, "2.0.0", planToken=plan["plan_token"], disableMissingSchedules=True, expect=409)

    assert (answer["success"], answer["code"]) == (False, "UPGRADE_PLAN_CHANGED")
    assert answer["plan"] == preview(upgrading, "2.0.0")
    assert AuditEvent.objects.filter(tenant_id=upgrading.tenant_id).count() == events


def test_a_repeat_finds_the_version_installed_and_does_nothing(upgrading):
    upgrade(upgrading, "2.0.0", disableMissingSchedules=True)
    events = AuditEvent.objects.filter(tenant_id=upgrading.tenant_id).count()

    again = upgrade(upgrading, "2.0.0")

    assert (again["success"], again["version"], again["previousVersion"]) == (True, "2.0.0", "2.0.0")
    assert AuditEvent.objects.filter(tenant_id=upgrading.tenant_id).count() == events


def test_an_unknown_version_is_404_and_losing_the_schedulers_capability_is_pointed_out(upgrading):
    assert upgrade(upgrading, "9.9.9", expect=404)["message"] == "The extension has no version 9.9.9"
    upgrading.api("POST", "upgrade/preview", {"version": "9.9.9"}, expect=404)
    body = {"content_hash": "e" * 64, "manifest": {"capabilities": ["cap:mail"], "api": {"endpoints": []}}}
    upgrading.registry("PUT", f"extensions/{upgrading.registry_id}/versions/4.0.0", body)

    plan = preview(upgrading, "4.0.0")

    assert plan["capabilities"] == {"added": ["cap:mail"], "removed": ["cap:scheduler.manage"]}
    assert "does not ask for cap:scheduler.manage any more" in plan["warnings"][0]


def test_the_trail_says_who_took_what_where_and_each_schedules_change(upgrading):
    plan = preview(upgrading, "2.0.0")
    choice = {"POST /gone": "POST /gone-elsewhere"}
    upgrade(upgrading, "2.0.0", planToken=plan["plan_token"], disableMissingSchedules=True, remap=choice)

    events = upgrading.tenant_api("GET", "audit-events?page_size=200", expect=200)["results"]
    event, first = [event for event in events if event["action"] == "install.upgraded"]
    assert (first["before"]["version"], first["after"]["version"]) == ("1.0.0", "1.1.0")
    assert event["actor"].startswith("API key")
    assert (event["before"]["version"], event["after"]["version"]) == ("1.1.0", "2.0.0")
    assert (event["after"]["remap"], event["after"]["plan_token"]) == (choice, plan["plan_token"])
    assert event["after"]["counts"]["disabled"] == 1
    moves = {
        event["subject_id"]: (event["before"]["endpoint"], event["after"]["endpoint"], event["after"]["enabled"])
        for event in events
        if event["action"] == "schedule.upgraded"
    }
    assert moves == {
        upgrading.kept["id"]: ("POST /kept", "POST /kept", True),
        upgrading.gone["id"]: ("POST /gone", "POST /gone-elsewhere", True),
        upgrading.shut["id"]: ("POST /shut", "POST /shut", False),
    }


@pytest.mark.parametrize("number", [1, 25])
def test_an_upgrade_takes_few_statements_and_temporal_hears_of_nothing_that_stays_enabled(world, number):
    world.publish("2.0.0", content_hash="b" * 64)
    for _ in range(number):
        world.create(sync=False)
    convergence_state = ["id", "generation", "changed_at"]
    rows = Schedule.objects.filter(install_id=world.install_id).order_by("id")
    before = list(rows.values(*convergence_state))
    statements = []

    with connection.execute_wrapper(_noting(statements)):
        upgrades.upgrade(**_named(world), version="2.0.0", options=upgrades.Options(), actor=ACTOR)

    assert len(statements) <= 9, statements
    assert list(rows.values(*convergence_state)) == before


def test_disabling_many_takes_few_statements_too(world):
    world.publish("2.0.0", content_hash="b" * 64, endpoints=[])
    for _ in range(20):
        world.create(sync=False)
    statements = []

    with connection.execute_wrapper(_noting(statements)):
        upgrades.upgrade(**_named(world), version="2.0.0", options=upgrades.Options(disable_missing=True), actor=ACTOR)

    assert len(statements) <= 12, statements


@pytest.mark.parametrize("way", ["there", "back", "by the registry"])
def test_an_error_at_any_statement_leaves_everything_as_it_was(upgrading, way):
    options = upgrades.Options(disable_missing=True, remap={"POST /gone": "POST /gone-elsewhere"})
    version = "2.0.0"
    if way == "back":
        upgrade(upgrading, version, disableMissingSchedules=True)
        rows = Schedule.objects.filter(install_id=upgrading.install_id)
        eventually(lambda: not rows.exclude(synced_generation=F("generation")).exists())
        version, options = "1.1.0", upgrades.Options()
    elif way == "by the registry":
        upgrading.publish("1.2.0", endpoints=declare("POST /kept", "POST /gone", "POST /shut"), content_hash="d" * 64)

    def do():
        if way != "by the registry":
            upgrades.upgrade(**_named(upgrading), version=version, options=options, actor=ACTOR)
            return
        state = installs.InstallState("1.2.0", is_enabled=False, config={}, granted_caps=[], secret_envelope=None)
        installs.put_install(tenant_id=upgrading.tenant_id, registry_id=upgrading.registry_id, state=state, actor=ACTOR)

    before = _everything(upgrading)
    for fails_at in range(1, 40):
        with connection.execute_wrapper(_failing(fails_at)):
            try:
                do()
            except InjectedError:
                assert _everything(upgrading) == before, fails_at
                continue
        break
    assert 7 <= fails_at < 39, "it should have come to its end after some statements"
    assert _everything(upgrading) != before


def test_what_random_plans_say_is_what_their_application_does(world):
    seed = int(os.environ.get("UPGRADES_SEED", random.randrange(1_000_000)))
    print(f"UPGRADES_SEED={seed}")
    rng = random.Random(seed)
    names = [f"{method} /{letter}" for method in ("GET", "POST") for letter in "abcd"]
    last = "1.0.0"
    for number in range(40):
        version = f"5.{number}.0"
        offered = rng.sample(names, rng.randrange(1, 6))
        declared = [
            {**endpoint, "schedulable": rng.random() < 0.85, "handler": rng.choice(["x", "y"])}
            for endpoint in declare(*offered)
        ]
        world.publish(version, endpoints=declared, content_hash=f"{number:064x}")
        install = ExtensionInstall.objects.select_related("version", "extension").get(id=world.install_id)
        options = upgrades.Options(
            disable_missing=rng.random() < 0.7, plan_token=upgrades.preview(install=install, version=version).token
        )
        before = {row.id: row for row in Schedule.objects.filter(install_id=world.install_id)}
        expected = upgrades.preview(install=install, version=version)
        if expected.blocking and not options.disable_missing:
            with pytest.raises(RemapFailed) as refused:
                upgrades.upgrade(**_named(world), version=version, options=options, actor=ACTOR)
            missing = {item["scheduleId"] for item in refused.value.data["missing"]}
            assert missing == {str(step.schedule.id) for step in expected.blocking}
            assert {row.id: row.revision for row in Schedule.objects.filter(install_id=world.install_id)} == {
                row.id: row.revision for row in before.values()
            }
        else:
            _, done = upgrades.upgrade(**_named(world), version=version, options=options, actor=ACTOR)
            _assert_done(world, done, before)
            last = version
        _assert_whole(world, last)
        _fiddle(world, rng)


def _assert_done(world, plan, before):
    after = {row.id: row for row in Schedule.objects.filter(install_id=world.install_id)}
    assert {step.schedule.id for step in plan.steps} == set(before) == set(after)
    for step in plan.steps:
        was, now = before[step.schedule.id], after[step.schedule.id]
        assert now.endpoint_id == (step.target.id if step.target else None)
        expected = {Change.ENABLE: True, Change.DISABLE: False}.get(step.change, was.enabled)
        assert now.enabled == expected
        assert (now.generation > was.generation) == (now.enabled != was.enabled)
        if step.target is None:
            assert (now.endpoint_method, now.endpoint_path) == (was.endpoint_method, was.endpoint_path)


def _assert_whole(world, version):
    install = ExtensionInstall.objects.select_related("version").get(id=world.install_id)
    assert install.version.version == version
    for row in Schedule.objects.filter(install_id=world.install_id).select_related("endpoint"):
        assert row.endpoint is None or row.endpoint.version_id == install.version_id
        assert row.endpoint is not None or not row.enabled


def _fiddle(world, rng):
    """What people do between two upgrades."""
    usable = [item for item in world.api("GET", "endpoints")["results"] if item["schedulable"]]
    rows = list(Schedule.objects.filter(install_id=world.install_id))
    if usable and len(rows) < 12:
        body = {"endpoint_id": rng.choice(usable)["id"], "cron": DAILY}
        world.api("POST", "schedules", body, expect=201)
    if rows and rng.random() < 0.3:
        row = rng.choice(rows)
        world.api("PATCH", f"schedules/{row.id}", {"enabled": False}, expect=200)
    if rows and rng.random() < 0.1:
        world.api("DELETE", f"schedules/{rng.choice(rows).id}", expect=204)


class InjectedError(Exception):
    """Nothing that the product knows."""


def _noting(statements):
    def note(execute, sql, params, many, context):
        if "SAVEPOINT" not in sql:
            statements.append(sql[:120])
        return execute(sql, params, many, context)

    return note


def _failing(at):
    count = 0

    def fail(execute, sql, params, many, context):
        nonlocal count
        count += 1
        if count == at:
            raise InjectedError
        return execute(sql, params, many, context)

    return fail


def _named(world):
    return {"tenant_id": world.tenant_id, "install_id": world.install_id}


def _everything(world):
    own = {"tenant_id": world.tenant_id}
    return (
        list(Schedule.objects.filter(**own).order_by("id").values()),
        list(ExtensionInstall.objects.filter(**own).values()),
        AuditEvent.objects.filter(**own).count(),
    )


def mirror(schedule):
    return temporal.describe_mirror(install_id=uuid.UUID(schedule["install_id"]), schedule_id=uuid.UUID(schedule["id"]))
