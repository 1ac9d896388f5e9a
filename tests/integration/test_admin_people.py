"""Users and members: operators decide who they are, through the service, and each decision is in the audit trail."""

import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from schedules.models import AuditEvent, Role, TenantMembership
from tests.support.people import page, signed_in

PASSWORD = "correct horse battery staple"


def unique(name="person"):
    return f"{name}-{uuid.uuid4().hex[:8]}"


def person(**changes):
    values = {
        "username": unique(),
        "first_name": "",
        "last_name": "",
        "email": "",
        "is_active": "on",
        "new_password": PASSWORD,
        "new_password_again": PASSWORD,
    } | changes
    return {name: value for name, value in values.items() if value is not None}


def save_user(client, data, user=None):
    address = reverse("admin:auth_user_add") if user is None else reverse("admin:auth_user_change", args=[user.pk])
    return client.post(address, data)


def trail_of(subject):
    key = uuid.UUID(int=subject.pk) if isinstance(subject, User) else subject.pk
    return list(AuditEvent.objects.filter(subject_id=key, source="admin").order_by("id"))


def errors_of(response):
    assert response.status_code == 200
    return response.context["adminform"].form.errors


def test_a_user_who_is_added_and_made_a_member_signs_in_and_works(operator, world):
    data = person(email="new@example.com")
    assert save_user(operator, data).status_code == 302
    user = User.objects.get(username=data["username"])
    member = {"tenant": world.tenant_id, "user": user.pk, "role": "viewer", "is_active": "on"}
    assert operator.post(reverse("admin:schedules_tenantmembership_add"), member).status_code == 302
    world.create(name="For members to see", sync=False)

    client = Client()
    client.post("/admin/login/", {"username": user.username, "password": PASSWORD}, REMOTE_ADDR="192.0.2.17")

    assert "For members to see" in page(client, "schedule_changelist").content.decode()
    membership = TenantMembership.objects.get(user=user)
    assert [(event.action, event.actor) for event in [*trail_of(user), *trail_of(membership)]] == [
        ("user.created", operator.user.username),
        ("membership.created", operator.user.username),
    ]
    assert trail_of(membership)[0].tenant_id == world.tenant_id
    assert "Add to a tenant" in operator.get(reverse("admin:auth_user_change", args=[user.pk])).content.decode()


def test_every_change_of_a_user_is_in_the_trail_and_passwords_are_not(operator):
    data = person()
    save_user(operator, data)
    user = User.objects.get(username=data["username"])
    old_hash = user.password
    unchanged = {"new_password": "", "new_password_again": ""}

    save_user(operator, data | unchanged | {"is_superuser": "on"}, user)
    save_user(operator, data | unchanged | {"is_superuser": "on"}, user)
    user.refresh_from_db()
    assert (user.is_superuser, user.password) == (True, old_hash)
    other = f"{PASSWORD} 2"
    save_user(operator, data | {"new_password": other, "new_password_again": other}, user)
    user.refresh_from_db()
    assert user.check_password(other)
    operator.post(reverse("admin:auth_user_delete", args=[user.pk]), {"post": "yes"})

    assert not User.objects.filter(pk=user.pk).exists()
    events = trail_of(user)
    assert [event.action for event in events] == [
        "user.created",
        "user.updated",
        "user.updated",
        "user.password_set",
        "user.deleted",
    ]
    assert (events[1].before["is_superuser"], events[1].after["is_superuser"]) == (False, True)
    assert not any(secret in str([event.before, event.after]) for event in events for secret in ("horse", old_hash))
    assert page(operator, "auditevent_changelist", subject_type="user").status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": "taken"}, "username"),
        ({"username": "has a space"}, "username"),
        ({"username": "x" * 151}, "username"),
        ({"email": "nonsense"}, "email"),
        ({"new_password": "password1", "new_password_again": "password1"}, "new_password"),
        ({"new_password_again": "another"}, "new_password_again"),
        ({"new_password": "", "new_password_again": ""}, "new_password"),
    ],
)
def test_wrong_input_about_a_user_is_told_at_its_field(operator, changes, field):
    User.objects.get_or_create(username="taken")
    count = User.objects.count()

    assert list(errors_of(save_user(operator, person(**changes)))) == [field]
    assert User.objects.count() == count


def test_a_membership_is_changed_and_removed_through_the_service(operator, world):
    # Somebody who was made where nobody thought of the admin.
    user = get_user_model().objects.create_user(unique(), password="x")
    given = {"tenant": world.tenant_id, "user": user.pk, "role": "administrator", "is_active": "on"}
    add = reverse("admin:schedules_tenantmembership_add")
    operator.post(add, given)
    membership = TenantMembership.objects.get(user=user)
    user.refresh_from_db()
    assert user.is_staff

    assert "user" in errors_of(operator.post(add, given))
    change = reverse("admin:schedules_tenantmembership_change", args=[membership.id])
    operator.post(change, {"role": "viewer"})
    membership.refresh_from_db()
    assert (membership.role, membership.is_active) == (Role.VIEWER, False)
    # What goes past the service is not offered.
    selected = {"action": "delete_selected", "_selected_action": str(membership.id), "post": "yes"}
    operator.post(reverse("admin:schedules_tenantmembership_changelist"), selected)
    assert TenantMembership.objects.filter(id=membership.id).exists()
    blocked = operator.post(reverse("admin:auth_user_delete", args=[user.pk]), {"post": "yes"})
    assert "protected" in blocked.content.decode()
    operator.post(reverse("admin:schedules_tenantmembership_delete", args=[membership.id]), {"post": "yes"})

    assert not TenantMembership.objects.filter(id=membership.id).exists()
    actions = [event.action for event in trail_of(membership)]
    assert actions == ["membership.created", "membership.updated", "membership.deleted"]
    assert [event.action for event in trail_of(user)] == ["user.updated"]


def test_an_operator_does_not_lock_themselves_out(operator):
    own = operator.user
    save_user(operator, person(username=own.username, is_active=None), own)
    assert operator.post(reverse("admin:auth_user_delete", args=[own.pk]), {"post": "yes"}).status_code == 403

    own.refresh_from_db()
    assert (own.is_active, own.is_superuser) == (True, True)
    # The password was set as well, and the session goes on.
    assert own.check_password(PASSWORD)
    assert operator.get(reverse("admin:auth_user_changelist")).status_code == 200


def test_people_are_for_operators_alone_and_their_lists_cost_the_same_for_many(operator, administrator, world):
    pages = ("auth_user", "schedules_tenantmembership")
    for name in pages:
        assert administrator.get(reverse(f"admin:{name}_changelist")).status_code == 403
        assert administrator.get(reverse(f"admin:{name}_add")).status_code == 403

    def statements():
        counts = []
        for name in pages:
            with CaptureQueriesContext(connection) as captured:
                assert operator.get(reverse(f"admin:{name}_changelist")).status_code == 200
            counts.append(len(captured))
        return counts

    statements()
    few = statements()
    for _ in range(10):
        signed_in(world, role=Role.VIEWER)
    assert statements() == few
