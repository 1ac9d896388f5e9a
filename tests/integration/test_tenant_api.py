"""Notification channels and API keys through the admin API."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from schedules.models import ApiKey, AuditEvent, NotificationChannel, Role

HOOK = {"kind": "webhook", "target": "https://hooks.example.com/x", "events": ["failure", "recovery"]}


def test_a_channel_lives_from_its_creation_to_its_deletion(world):
    made = world.tenant_api("POST", "notification-channels", HOOK, expect=201)
    assert made["secret"].startswith("whsec_")
    listed = world.tenant_api("GET", "notification-channels", expect=200)["results"]
    assert [channel["id"] for channel in listed] == [made["id"]]
    assert "secret" not in listed[0]

    address = f"notification-channels/{made['id']}"
    changed = world.tenant_api("PATCH", address, {"is_active": False, "events": ["missed"]}, expect=200)
    assert (changed["is_active"], changed["events"], changed["target"]) == (False, ["missed"], HOOK["target"])
    world.tenant_api("DELETE", address, expect=204)
    world.tenant_api("DELETE", address, expect=404)
    actions = AuditEvent.objects.filter(tenant_id=world.tenant_id, subject_id=made["id"]).values_list(
        "action", flat=True
    )
    assert sorted(actions) == [f"notification_channel.{what}" for what in ("created", "deleted", "updated")]


@pytest.mark.parametrize(
    ("wrong", "member"),
    [
        ({"target": "http://169.254.169.254/"}, "target"),
        ({"events": "failure"}, "events"),
        ({"events": ["failure", 7]}, "events.1"),
        ({"kind": "fax"}, "kind"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_channel_says_where(world, wrong, member):
    answer = world.tenant_api("POST", "notification-channels", HOOK | wrong, expect=400)

    assert list(answer["fields"]) == [member]
    assert not NotificationChannel.objects.filter(tenant_id=world.tenant_id).exists()


def test_a_key_is_shown_once_works_and_stops_at_once(world):
    made = world.tenant_api("POST", "api-keys", {"name": "Backup", "role": "viewer"}, expect=201)
    world.api("GET", "schedules", key=made["key"], expect=200)
    world.api("POST", "schedules", {}, key=made["key"], expect=403)
    listed = world.tenant_api("GET", "api-keys", expect=200)["results"]
    mine = next(key for key in listed if key["id"] == made["id"])
    assert "key" not in mine
    assert made["key"].count(mine["prefix"]) == 1

    world.tenant_api("DELETE", f"api-keys/{made['id']}", expect=204)
    world.tenant_api("DELETE", f"api-keys/{made['id']}", expect=204)

    world.api("GET", "schedules", key=made["key"], expect=401)


def test_a_key_ends_when_it_expires(world):
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert "expires_at" in world.tenant_api("POST", "api-keys", {"name": "x", "expires_at": past}, expect=400)["fields"]
    made = world.tenant_api("POST", "api-keys", {"name": "x", "expires_at": future}, expect=201)
    world.api("GET", "schedules", key=made["key"], expect=200)

    ApiKey.objects.filter(id=made["id"]).update(expires_at=past)

    world.api("GET", "schedules", key=made["key"], expect=401)


def test_a_viewer_sees_channels_and_neither_changes_them_nor_sees_keys(world):
    made = world.tenant_api("POST", "notification-channels", HOOK, expect=201)
    world.tenant_api("GET", "notification-channels", role=Role.VIEWER, expect=200)
    world.tenant_api("POST", "notification-channels", HOOK, role=Role.VIEWER, expect=403)
    world.tenant_api("DELETE", f"notification-channels/{made['id']}", role=Role.VIEWER, expect=403)
    world.tenant_api("GET", "api-keys", role=Role.VIEWER, expect=403)
    world.tenant_api("POST", "api-keys", {"name": "mine"}, role=Role.VIEWER, expect=403)


def test_what_another_tenant_keeps_is_unknown(world, other_world):
    channel = other_world.tenant_api("POST", "notification-channels", HOOK, expect=201)
    key = other_world.tenant_api("POST", "api-keys", {"name": "theirs"}, expect=201)
    unknown = uuid.uuid4()
    for kind, theirs in (("notification-channels", channel), ("api-keys", key)):
        mine = world.tenant_api("DELETE", f"{kind}/{theirs['id']}", expect=404)
        assert mine == world.tenant_api("DELETE", f"{kind}/{unknown}", expect=404)
        world.tenant_api("GET", f"{kind}?tenant_id={other_world.tenant_id}", expect=404)
        world.tenant_api("GET", f"{kind}?tenant_id=x", expect=400)
    other_world.api("GET", "schedules", key=key["key"], expect=200)
