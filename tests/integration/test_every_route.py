"""Every address of the product, asked by everybody: owner, viewer, another tenant, nobody, services without a token.

The addresses are taken from the URL configuration, so a new one without a case fails here.
"""

import json
import uuid

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse

from schedules.models import Role, TenantMembership
from tests.support.world import REGISTRY_TOKEN, RUNNER_TOKEN

OPEN, OUTSIDE = {"owner": 200, "viewer": 200, "other": 200, "nobody": 200}, None
READ = {"owner": 200, "viewer": 200, "other": 404, "nobody": 401}


def write(status, *, other=404):
    return {"owner": status, "viewer": 403, "other": other, "nobody": 401}


def own(status, *, viewer):
    """About the caller's own tenant: another tenant's caller gets its own."""
    return {"owner": status, "viewer": viewer, "other": status, "nobody": 401}


# Route -> [(method, body, expected status by caller)].
CASES = {
    "endpoints": [("GET", None, READ)],
    "preview": [("POST", {"cron": "0 4 * * *"}, READ)],
    "stats": [("GET", None, READ)],
    "disable-all": [("POST", {}, write(200))],
    "schedules": [("GET", None, READ), ("POST", {"endpoint": "{path}", "cron": "0 5 * * *"}, write(201))],
    "schedule": [("GET", None, READ), ("PATCH", {"payload": {"a": 1}}, write(200)), ("DELETE", None, write(204))],
    "lift-hold": [("POST", {}, write(200))],
    "run-now": [("POST", {}, write(202))],
    "runs": [("GET", None, READ)],
    "backfill": [("POST", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"}, write(202))],
    "backfill-preview": [("POST", {"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"}, READ)],
    "install-runs": [("GET", None, READ)],
    "run": [("GET", None, READ)],
    "cancel-run": [("POST", {}, write(202))],
    "replay-run": [("POST", {}, write(409))],
    "upgrade-preview": [("POST", {"version": "1.0.0"}, READ)],
    "upgrade": [("POST", {"registryId": "{install}", "version": "1.0.0"}, write(200))],
    # No key of a tenant opens what is about the platform.
    "kill-switches": [
        ("GET", None, {"owner": 403, "viewer": 403, "other": 403, "nobody": 401}),
        ("POST", {"scope": "platform", "reason": "x"}, {"owner": 403, "viewer": 403, "other": 403, "nobody": 401}),
    ],
    "kill-switch": [("DELETE", None, {"owner": 403, "viewer": 403, "other": 403, "nobody": 401})],
    "tenant": [("GET", None, own(200, viewer=200)), ("PATCH", {"keep_other_days": 9}, own(200, viewer=403))],
    "extensions": [("GET", None, own(200, viewer=200))],
    "audit-events": [("GET", None, own(200, viewer=200))],
    "notifications": [("GET", None, own(200, viewer=200))],
    "tenant-stats": [("GET", None, own(200, viewer=200))],
    "notification-channels": [
        ("GET", None, own(200, viewer=200)),
        ("POST", {"kind": "email", "target": "a@example.com", "events": ["missed"]}, own(201, viewer=403)),
    ],
    "notification-channel": [("PATCH", {"is_active": False}, write(200)), ("DELETE", None, write(204))],
    "api-keys": [("GET", None, own(200, viewer=403)), ("POST", {"name": "x"}, own(201, viewer=403))],
    "api-key": [("DELETE", None, write(204))],
    # Tokens open these, and nothing that a tenant has.
    "host-api": [("POST", {"operation": "list"}, dict.fromkeys(OPEN, 401) | {"runner": 200, "registry": 401})],
    "registry-tenant": [
        ("PUT", {"name": "Acme", "timezone": "UTC"}, dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 200}),
        ("DELETE", None, dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 204}),
    ],
    "registry-install": [
        ("PUT", {"version": "1.0.0"}, dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 200}),
        ("DELETE", None, dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 204}),
    ],
    "registry-extension": [
        (
            "PUT",
            {"publisher": "{publisher}", "name": "reports"},
            dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 200},
        )
    ],
    "registry-version": [
        (
            "PUT",
            {"content_hash": "f" * 64, "manifest": {}},
            dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 409},
        ),
        ("DELETE", None, dict.fromkeys(OPEN, 401) | {"runner": 401, "registry": 409}),
    ],
    # Pages, and what holds nothing of a tenant.
    "metrics": [("GET", None, OPEN)],
    "healthz": [("GET", None, OPEN)],
    "readyz": [("GET", None, OPEN)],
    "status": [("GET", None, dict.fromkeys(OPEN, 401))],
    "schema": [("GET", None, OPEN)],
    "docs": [("GET", None, OPEN)],
    "": [("GET", None, dict.fromkeys(OPEN, 302))],
}
CALLERS = ("owner", "viewer", "other", "nobody", "runner", "registry")


def routes(resolver, namespace=""):
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from routes(entry, entry.namespace or namespace)
        else:
            yield namespace, entry.name or "", entry


ROUTES = list(routes(get_resolver()))


def test_every_route_has_a_case():
    assert {name for namespace, name, _ in ROUTES if not namespace} == set(CASES)
    assert {namespace for namespace, _, _ in ROUTES} == {"", "admin"}


@pytest.fixture
def scene(world, other_world):
    """What the addresses can name, all of it of `world`."""
    schedule = world.create(sync=False)
    run = world.queued_run(schedule)
    channel = {"kind": "email", "target": "a@example.com", "events": ["missed"]}
    return {
        "extension_ref": world.install_id,
        "schedule_id": schedule["id"],
        "run_id": run.id,
        "channel_id": world.tenant_api("POST", "notification-channels", channel, expect=201)["id"],
        "key_id": world.tenant_api("POST", "api-keys", {"name": "to be revoked"}, expect=201)["id"],
        "install_id": world.install_id,
        "tenant_id": world.tenant_id,
        "registry_id": world.registry_id,
        "version": "1.0.0",
        "switch_id": uuid.uuid4(),
    }


def headers_of(caller, world, other_world):
    return {
        "owner": {"authorization": f"Api-Key {world.key()}"},
        "viewer": {"authorization": f"Api-Key {world.key(Role.VIEWER)}"},
        "other": {"authorization": f"Api-Key {other_world.key()}"},
        "nobody": {"x-runner-auth": "wrong", "x-registry-auth": "wrong"},
        "runner": {"x-runner-auth": RUNNER_TOKEN},
        "registry": {"x-registry-auth": REGISTRY_TOKEN},
    }[caller]


def ask(world, other_world, scene, name, method, body, caller):
    pattern = next(entry for namespace, found, entry in ROUTES if (namespace, found) == ("", name))
    arguments = {argument: scene[argument] for argument in pattern.pattern.converters}
    address = reverse(name, kwargs=arguments) if name else "/"
    text = json.dumps(body).replace("{path}", f"POST {world.path}").replace("{publisher}", world.publisher)
    text = text.replace("{install}", str(world.install_id))
    return Client(raise_request_exception=False).generic(
        method,
        address,
        text if body is not None else "",
        content_type="application/json",
        headers=headers_of(caller, world, other_world),
    )


@pytest.mark.parametrize("name", sorted(CASES))
def test_everybody_gets_what_is_theirs(world, other_world, scene, name):
    for method, body, expected in CASES[name]:
        # The owner last: what it does may take the object away.
        for caller in sorted(expected, key=lambda caller: caller in {"owner", "registry"}):
            answer = ask(world, other_world, scene, name, method, body, caller)
            assert answer.status_code == expected[caller], (method, caller, answer.content)


@pytest.mark.parametrize("name", sorted(CASES))
def test_another_tenants_object_is_answered_like_an_unknown_one(world, other_world, scene, name):
    unknown = scene | {argument: uuid.uuid4() for argument in scene if argument not in {"version", "tenant_id"}}
    for method, body, expected in CASES[name]:
        if expected.get("other") != 404:
            continue
        theirs = ask(world, other_world, scene, name, method, body, "other")
        nobodys = ask(world, other_world, unknown, name, method, body, "other")
        assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_a_route_does_not_offer_is_405(world, other_world, scene, name):
    offered = {method for method, _, _ in CASES[name]}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - offered:
        answer = ask(
            world, other_world, scene, name, method, {}, "registry" if name.startswith("registry") else "owner"
        )
        # Who may do nothing at an address is not told what others may.
        otherwise = {"": 302, "kill-switches": 403, "kill-switch": 403}.get(name, 401)
        assert answer.status_code in {405, otherwise}, (method, answer.content)


@pytest.fixture
def stranger(other_world):
    """An administrator of another tenant, in the browser."""
    user = get_user_model().objects.create_user(f"stranger-{uuid.uuid4()}", password="x", is_staff=True)
    TenantMembership.objects.create(tenant_id=other_world.tenant_id, user=user, role=Role.ADMINISTRATOR)

    def visit(address):
        # A session for each page: an earlier one's messages, which repeat what was asked for, are shown on the next.
        client = Client(raise_request_exception=False)
        client.force_login(user)
        return client.get(address)

    return visit


def test_no_page_of_the_admin_opens_for_nobody_or_shows_a_stranger_anything(world, stranger, scene):
    objects = {
        "tenant": scene["tenant_id"],
        "extensioninstall": scene["install_id"],
        "schedule": scene["schedule_id"],
        "schedulerun": scene["run_id"],
        "notificationchannel": scene["channel_id"],
        "apikey": scene["key_id"],
    }
    open_pages = {"login", "jsi18n", "logout"}
    for namespace, name, entry in ROUTES:
        if namespace != "admin" or name in open_pages:
            continue
        model = name.split("_")[1] if name.startswith("schedules_") else ""
        values = {
            "object_id": objects.get(model, uuid.uuid4()),
            "app_label": "schedules",
            "content_type_id": 1,
            "url": "x",
            "id": uuid.uuid4(),
            "schedule_id": scene["schedule_id"],
            "run_id": scene["run_id"],
            "install_id": scene["install_id"],
            "do": "uninstall",
        }
        arguments = {argument: values[argument] for argument in entry.pattern.converters if argument in values}
        if len(arguments) < len(entry.pattern.converters) or entry.pattern.regex.groups > len(arguments):
            continue
        address = reverse(f"admin:{name}", kwargs=arguments) if name else "/admin/nothing"
        assert Client(raise_request_exception=False).get(address).status_code in {302, 403, 404}, address
        answer = stranger(address)
        assert answer.status_code < 500, address
        page = answer.content.decode(errors="replace")
        for theirs in (world.publisher, world.path, str(scene["schedule_id"])):
            assert theirs not in page or theirs in address, (address, theirs)
