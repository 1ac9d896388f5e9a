"""The registry API: how the platform brings tenants, extensions, versions and installs in."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from schedules.models import ApiEndpoint, AuditEvent, ExtensionInstall, ExtensionVersion, ScheduleRun
from tests.support.world import World


def test_every_call_is_idempotent(world):
    before = AuditEvent.objects.filter(tenant_id=world.tenant_id).count()

    world.set_up()

    assert AuditEvent.objects.filter(tenant_id=world.tenant_id).count() == before
    assert ExtensionInstall.objects.filter(tenant_id=world.tenant_id).count() == 1


@pytest.mark.parametrize("token", ["", "wrong", "registry-token-in-us", "runner-token-in-use"])
def test_a_wrong_token_is_refused(world, token):
    answer = world.registry("PUT", f"tenants/{world.tenant_id}", {"name": "Mallory"}, token=token, expect=401)

    assert answer["code"] == "not_authenticated"


def test_without_a_configured_token_everybody_is_refused(world, settings):
    settings.REGISTRY_SERVICE_TOKENS = ()

    world.registry("PUT", f"tenants/{world.tenant_id}", {"name": "Mallory"}, token="", expect=401)


def test_a_manifest_is_materialised_and_its_malformed_members_are_reported(world):
    endpoints = [
        {"method": "post", "path": "api//reports///daily", "handler": "dist/main"},
        {"method": "POST", "path": "/api/reports/daily", "handler": "dist/other"},
        {"method": "GET", "path": "/api/items/{id}"},
        {"method": "PUT", "path": "/api/items"},
        {"method": "GET", "path": "/api/hidden", "schedulable": False},
        {"method": "BREW", "path": "/api/coffee"},
        {"method": "GET"},
        {"path": "/api/no-method"},
        "nonsense",
        {"method": "GET", "path": "/api/x", "schedulable": "yes"},
        {"method": "GET", "path": "/api/../secrets"},
        {"method": "GET", "path": "/api/a b"},
    ]
    body = {"content_hash": "sha256:" + "c" * 64, "manifest": world.manifest(endpoints)}

    answer = world.registry("PUT", f"extensions/{world.registry_id}/versions/3.0.0", body)

    assert [(item["method"], item["path"], item["schedulable"]) for item in answer["endpoints"]] == [
        ("GET", "/api/hidden", False),
        ("PUT", "/api/items", False),
        ("GET", "/api/items/{id}", False),
        ("POST", "/api/reports/daily", True),
    ]
    assert answer["endpoints"][3]["handler"] == "dist/main"
    assert [item["index"] for item in answer["skipped"]] == [5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("manifest", [{}, {"api": None}, {"api": {"endpoints": {"a": 1}}}, {"api": []}])
def test_a_manifest_without_usable_endpoints_is_stored(world, manifest):
    body = {"content_hash": "d" * 64, "manifest": manifest}

    answer = world.registry("PUT", f"extensions/{world.registry_id}/versions/4.0.0", body)

    assert answer["endpoints"] == []


def test_the_same_numbers_are_the_same_content_whatever_form_they_come_back_in(world):
    body = {"content_hash": "e" * 64, "manifest": {"x": 1e23, "y": 1.0, "z": 1e-7}}

    for _ in range(2):
        world.registry("PUT", f"extensions/{world.registry_id}/versions/5.0.0", body)


@pytest.mark.parametrize("content_hash", [5, "ab\n", " ab", ""])
def test_a_hash_is_taken_as_it_is_or_not_at_all(world, content_hash):
    body = {"content_hash": content_hash, "manifest": {}}

    answer = world.registry("PUT", f"extensions/{world.registry_id}/versions/6.0.0", body, expect=400)

    assert "content_hash" in answer["fields"]


def test_other_content_under_the_same_version_is_a_conflict(world):
    path = f"extensions/{world.registry_id}/versions/1.0.0"
    for body in (
        {"content_hash": "b" * 64, "manifest": world.manifest()},
        {"content_hash": "a" * 64, "manifest": world.manifest([])},
        {"content_hash": "a" * 64, "manifest": world.manifest(), "version_id": str(uuid.uuid4())},
    ):
        assert world.registry("PUT", path, body, expect=409)["code"] == "conflict"


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        ("tenants/{tenant}", {}, "name"),
        ("tenants/{tenant}", {"name": "A", "timezone": "Mars/Olympus"}, "timezone"),
        ("tenants/{tenant}", {"name": 7}, "name"),
        ("tenants/{tenant}", {"name": "A\x00"}, "name"),
        ("tenants/{tenant}", {"name": "x" * 129}, "name"),
        ("tenants/{tenant}", {"name": "A", "zone": "UTC"}, "zone"),
        ("tenants/not-a-uuid", {"name": "A"}, "tenant_id"),
        ("extensions/{registry}/versions/9.9.9", {"content_hash": "a b", "manifest": {}}, "content_hash"),
        ("extensions/{registry}/versions/9.9.9", {"content_hash": "a", "manifest": []}, "manifest"),
        ("extensions/{registry}/versions/9.9.9", {"content_hash": "a", "manifest": {"a": "\x00"}}, "manifest"),
        ("tenants/{tenant}/installs/{registry}", {"version": "1.0.0", "is_enabled": "yes"}, "is_enabled"),
        ("tenants/{tenant}/installs/{registry}", {"version": "1.0.0", "config": []}, "config"),
        ("tenants/{tenant}/installs/{registry}", {"version": "1.0.0", "granted_caps": "all"}, "granted_caps"),
    ],
)
def test_bad_input_names_its_member(world, path, body, member):
    path = path.format(tenant=world.tenant_id, registry=world.registry_id)

    answer = world.registry("PUT", path, body, expect=400)

    assert answer["code"] == "invalid"
    assert member in answer["fields"]


def test_unknown_things_are_404(world):
    unknown = uuid.uuid4()
    body = {"version": "1.0.0"}
    world.registry("PUT", f"tenants/{unknown}/installs/{world.registry_id}", body, expect=404)
    world.registry("PUT", f"tenants/{world.tenant_id}/installs/{unknown}", body, expect=404)
    world.registry("PUT", f"tenants/{world.tenant_id}/installs/{world.registry_id}", {"version": "7"}, expect=404)
    version = {"content_hash": "a", "manifest": {}}
    world.registry("PUT", f"extensions/{unknown}/versions/1.0.0", version, expect=404)
    world.registry("PUT", "elsewhere", {}, expect=404)


def test_a_version_in_use_cannot_be_deleted_and_an_unused_one_takes_its_endpoints_along(world):
    world.publish("2.0.0", content_hash="b" * 64)
    version_id = ExtensionVersion.objects.get(extension_id=world.registry_id, version="2.0.0").id

    world.registry("DELETE", f"extensions/{world.registry_id}/versions/1.0.0", expect=409)
    world.registry("DELETE", f"extensions/{world.registry_id}/versions/2.0.0")
    world.registry("DELETE", f"extensions/{world.registry_id}/versions/2.0.0")

    assert not ApiEndpoint.objects.filter(version_id=version_id).exists()


def test_another_version_carries_the_schedules_over(world):
    schedule = world.create()
    world.publish("2.0.0", content_hash="b" * 64)

    world.put_install(version="2.0.0")

    shown = world.api("GET", f"schedules/{schedule['id']}")
    endpoints = world.api("GET", "endpoints")["results"]
    assert shown["endpoint_id"] in {endpoint["id"] for endpoint in endpoints}
    assert shown["endpoint_id"] != schedule["endpoint_id"]


def test_a_version_that_lacks_an_endpoint_is_refused_whole(world):
    kept, lost = world.create(name="kept"), world.create(name="lost", endpoint=f"GET {world.path}/status")
    world.publish("2.0.0", content_hash="b" * 64, endpoints=[{"method": "POST", "path": world.path}])
    install = {"install_id": str(world.install_id), "version": "2.0.0"}

    answer = world.registry("PUT", f"tenants/{world.tenant_id}/installs/{world.registry_id}", install, expect=409)

    assert answer["code"] == "SCHEDULE_REMAP_FAILED"
    missing = [{"scheduleId": lost["id"], "method": "GET", "path": f"{world.path}/status"}]
    assert answer["data"]["missing"] == missing
    assert world.api("GET", f"schedules/{kept['id']}")["endpoint_id"] == kept["endpoint_id"]


def test_uninstalling_removes_schedules_and_keeps_runs_and_audit(world):
    schedule = world.create()
    run = world.run_now(schedule)

    world.registry("DELETE", f"tenants/{world.tenant_id}/installs/{world.registry_id}")
    world.registry("DELETE", f"tenants/{world.tenant_id}/installs/{world.registry_id}")

    world.api("GET", "schedules", expect=404)
    assert ScheduleRun.objects.filter(id=run["id"]).exists()
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, action="install.deleted").count() == 1


def test_secrets_stay_out_of_the_audit_trail(world):
    world.put_install(config={"token": "hidden-value"}, secret_envelope={"ciphertext": "hidden-envelope"})

    (event,) = AuditEvent.objects.filter(tenant_id=world.tenant_id, action="install.put").order_by("-id")[:1]
    assert event.after["config_members"] == ["token"]
    assert "hidden" not in str(event.before) + str(event.after)


def test_the_same_call_many_times_at_once_makes_one_of_everything(database, temporal_proxy):
    world = World()

    def register(_):
        try:
            World.set_up(world)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(register, range(8)))

    assert ExtensionInstall.objects.filter(tenant_id=world.tenant_id).count() == 1
    assert ExtensionVersion.objects.filter(extension_id=world.registry_id).count() == 1
