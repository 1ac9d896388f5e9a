"""The ends of things: uninstalling, deleting a tenant bit by bit, and versions that came without their endpoints."""

import io
import threading

from django.core.management import call_command

from schedules import audit, installs
from schedules.models import (
    ApiEndpoint,
    ApiKey,
    AuditEvent,
    ExtensionInstall,
    ExtensionVersion,
    MirrorRemoval,
    Schedule,
    ScheduleRun,
    Tenant,
)
from tests.support.fake_runner import answers, hangs
from tests.support.waiting import eventually

ACTOR = audit.Actor(audit.Source.SYSTEM, "tests")


def test_uninstalling_cancels_what_is_in_flight_within_seconds(world, worker, fake_runner):
    gate = threading.Event()
    fake_runner.script(world.path, hangs(gate))
    run = world.run_now(world.create())
    fake_runner.wait_for_calls(world.path, 1)

    world.registry("DELETE", f"tenants/{world.tenant_id}/installs/{world.registry_id}")

    row = eventually(lambda: ScheduleRun.objects.filter(id=run["id"]).exclude(finished_at=None).first())
    gate.set()
    assert (row.status, row.reason) == ("cancelled", "the extension was uninstalled")
    assert not MirrorRemoval.objects.filter(tenant_id=world.tenant_id).exists() or eventually(
        lambda: not MirrorRemoval.objects.filter(tenant_id=world.tenant_id).exists()
    )


def test_disabling_an_install_and_enabling_it_again_brings_back_what_was_enabled(world):
    on, off = world.create(), world.create(enabled=False)

    world.put_install(is_enabled=False)
    shown = [world.api("GET", f"schedules/{each['id']}") for each in (on, off)]
    assert [(each["enabled"], each["next_run_at"]) for each in shown] == [(True, None), (False, None)]

    world.put_install(is_enabled=True)
    shown = [world.api("GET", f"schedules/{each['id']}") for each in (on, off)]
    assert [(each["enabled"], bool(each["next_run_at"])) for each in shown] == [(True, True), (False, False)]
    assert not ScheduleRun.objects.filter(tenant_id=world.tenant_id).exists(), "no burst of what was missed"


def test_a_disabled_install_makes_no_further_attempt_and_its_version_waits_for_the_run(world, worker, fake_runner):
    fake_runner.script(world.path, answers(503))
    run = world.run_now(world.create(retry_first_delay_seconds=2))
    eventually(lambda: ScheduleRun.objects.get(id=run["id"]).attempt_log)
    world.publish("2.0.0", content_hash="b" * 64)
    world.put_install(version="2.0.0")
    refused = world.registry("DELETE", f"extensions/{world.registry_id}/versions/1.0.0", expect=409)
    assert refused["message"] == "A run of version 1.0.0 is in flight"

    world.put_install(version="2.0.0", is_enabled=False)

    ended = world.finished_run(run["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "the extension was disabled between two attempts")
    world.registry("DELETE", f"extensions/{world.registry_id}/versions/1.0.0")


def test_deleting_a_tenant_that_is_interrupted_leaves_nothing_that_acts_and_goes_on(world):
    schedule = world.create()
    world.run_now(schedule)
    key = world.key()

    is_done = installs.delete_tenant(tenant_id=world.tenant_id, actor=ACTOR, budget_seconds=-1)

    assert not is_done
    own = {"tenant_id": world.tenant_id}
    for gone in (Schedule, ExtensionInstall, ApiKey):
        assert not gone.objects.filter(**own).exists()
    assert ScheduleRun.objects.filter(**own).exists() or AuditEvent.objects.filter(**own).exists()
    world.api("GET", "schedules", key=key, expect=401)
    body = {"name": "Acme", "timezone": "UTC"}
    assert "being deleted" in world.registry("PUT", f"tenants/{world.tenant_id}", body, expect=409)["message"]
    install = {"version": "1.0.0"}
    world.registry("PUT", f"tenants/{world.tenant_id}/installs/{world.registry_id}", install, expect=409)

    assert installs.finish_deletions(budget_seconds=30) >= 1

    assert not Tenant.objects.filter(id=world.tenant_id).exists()
    assert not ScheduleRun.objects.filter(**own).exists()
    assert not AuditEvent.objects.filter(**own).exists()
    events = AuditEvent.objects.filter(tenant_id=None, subject_id=world.tenant_id).order_by("id")
    assert [event.action for event in events] == ["tenant.deletion_began", "tenant.deleted"]
    assert installs.delete_tenant(tenant_id=world.tenant_id, actor=ACTOR)
    world.registry("PUT", f"tenants/{world.tenant_id}", body)


def imported(world, version="2.0.0"):
    """A version as an import would leave it: stored, and its manifest never read."""
    manifest = world.manifest([{"method": "POST", "path": "/new"}, {"method": "BREW", "path": "/coffee"}, "nonsense"])
    return ExtensionVersion.objects.create(
        extension_id=world.registry_id, version=version, content_hash="b" * 64, manifest=manifest
    )


def test_a_version_that_came_without_endpoints_gets_them_when_they_are_first_asked_for(world):
    version = imported(world)

    plan = world.api("POST", "upgrade/preview", {"version": "2.0.0"}, expect=200)
    world.put_install(version="2.0.0")
    created = world.create(endpoint="POST /new", sync=False)

    assert plan["can_apply"]
    assert created["endpoint_path"] == "/new"
    version.refresh_from_db()
    assert version.endpoints_read_at is not None
    assert [str(endpoint) for endpoint in ApiEndpoint.objects.filter(version=version)] == ["POST /new"]


def test_the_command_reads_what_was_never_read_reports_what_it_left_out_and_can_be_repeated(world):
    version = imported(world)

    def run(*options):
        out, err = io.StringIO(), io.StringIO()
        call_command("materialize_endpoints", *options, stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    said, left_out = run()
    assert f"{world.publisher}.reports 2.0.0: 1 endpoint(s), 2 left out" in said
    assert "api.endpoints[1] was left out: method 'BREW'" in left_out
    ids = set(ApiEndpoint.objects.filter(version=version).values_list("id", flat=True))
    assert "2.0.0" not in run()[0]
    run("--all")
    assert set(ApiEndpoint.objects.filter(version=version).values_list("id", flat=True)) == ids


def test_every_install_of_an_extension_is_upgraded_by_one_command_each_by_itself(world, other_world):
    world.publish("2.0.0", content_hash="b" * 64, endpoints=[{"method": "POST", "path": "/else"}])
    extension = f"{world.publisher}.reports"
    for each in (world, other_world):
        each.registry("PUT", f"tenants/{each.tenant_id}/installs/{world.registry_id}", {"version": "1.0.0"})
    free = ExtensionInstall.objects.get(tenant_id=other_world.tenant_id, extension_id=world.registry_id)
    stuck = world.create(sync=False)

    def run(*options):
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("upgrade_installs", extension, "2.0.0", *options, stdout=out, stderr=err)
        except SystemExit as ended:
            return ended.code, out.getvalue(), err.getvalue()
        return 0, out.getvalue(), err.getvalue()

    def version_of(install_id):
        return ExtensionInstall.objects.select_related("version").get(id=install_id).version.version

    status, said, refused = run("--dry-run")
    assert (status, version_of(free.id), version_of(world.install_id)) == (1, "1.0.0", "1.0.0")
    assert "1 install(s) would be taken" in said

    status, said, refused = run("--from", "1.0.0")
    assert (status, version_of(free.id), version_of(world.install_id)) == (1, "2.0.0", "1.0.0")
    assert f"install {world.install_id} stays as it is: 1 schedule calls an endpoint that" in refused

    status, said, _ = run("--remap", f"POST {world.path}=POST /else", "--remap", "POST /nobody=POST /else")
    assert (status, version_of(world.install_id)) == (0, "2.0.0")
    assert world.api("GET", f"schedules/{stuck['id']}")["endpoint_path"] == "/else"
    assert run()[1].startswith("0 install(s) taken")
