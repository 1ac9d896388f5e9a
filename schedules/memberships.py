"""Who may sign in, and who works in which tenant: operators decide both, and each change is in the audit trail."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from schedules import audit
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import Role, Tenant, TenantMembership


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What an operator decides about a user, beside the password. A superuser is an operator."""

    username: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    is_active: bool = True
    is_superuser: bool = False


def create_user(person: Person, *, password: str, actor: audit.Actor) -> User:
    """Add a user, who may sign in from now on. Raises InvalidFields."""
    user = User()
    _fill(user, person, password)
    with transaction.atomic():
        _save(user)
        audit.record(actor, "user.created", user, after=_describe(user))
    return user


def update_user(user_id: int, person: Person, *, actor: audit.Actor, password: str | None = None) -> User:
    """Change a user; None leaves the password alone. A repeat without one changes nothing.

    Raises InvalidFields, NotFound.
    """
    with transaction.atomic():
        user = _lock_user(user_id)
        before = _describe(user)
        _fill(user, person, password)
        after = _describe(user)
        if after != before:
            audit.record(actor, "user.updated", user, before=before, after=after)
        if password is not None:
            audit.record(actor, "user.password_set", user)
        if after != before or password is not None:
            _save(user)
    return user


def delete_user(user_id: int, *, actor: audit.Actor) -> None:
    """Delete a user. Raises NotFound, Conflict while the user works in a tenant."""
    with transaction.atomic():
        user = _lock_user(user_id)
        if TenantMembership.objects.filter(user=user).exists():
            raise Conflict("The user works in a tenant; remove the memberships first, or deactivate the user")
        audit.record(actor, "user.deleted", user, before=_describe(user))
        user.delete()


def add_member(
    *, tenant_id: UUID, user_id: int, role: str, actor: audit.Actor, is_active: bool = True
) -> TenantMembership:
    """Let a user work in a tenant, and sign in for that.

    Raises InvalidFields where the user does already, NotFound for an unknown tenant or user.
    """
    with transaction.atomic():
        if Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id, deleted_at=None).first() is None:
            raise NotFound("Tenant not found")
        user = _lock_user(user_id)
        wrong = _problems(role)
        if TenantMembership.objects.filter(tenant_id=tenant_id, user=user).exists():
            wrong["user"] = "This user works in this tenant already"
        if wrong:
            raise InvalidFields.from_fields(wrong)
        _let_in(user, actor)
        membership = TenantMembership.objects.create(tenant_id=tenant_id, user=user, role=role, is_active=is_active)
        audit.record(actor, "membership.created", membership, after=_describe_membership(membership))
    return membership


def change_member(
    *, tenant_id: UUID, membership_id: UUID, role: str, is_active: bool, actor: audit.Actor
) -> TenantMembership:
    """Change what a member may do, or whether they may. A repeat changes nothing. Raises InvalidFields, NotFound."""
    if wrong := _problems(role):
        raise InvalidFields.from_fields(wrong)
    with transaction.atomic():
        membership = _lock_membership(tenant_id, membership_id)
        before = _describe_membership(membership)
        membership.role, membership.is_active = role, is_active
        after = _describe_membership(membership)
        if after != before:
            membership.save(update_fields=["role", "is_active"])
            audit.record(actor, "membership.updated", membership, before=before, after=after)
        _let_in(membership.user, actor)
    return membership


def remove_member(*, tenant_id: UUID, membership_id: UUID, actor: audit.Actor) -> None:
    """End a membership; the user stays. Raises NotFound, also on a repeat."""
    with transaction.atomic():
        membership = _lock_membership(tenant_id, membership_id)
        audit.record(actor, "membership.deleted", membership, before=_describe_membership(membership))
        membership.delete()


def _let_in(user: User, actor: audit.Actor) -> None:
    """Members work in the admin, which lets in whom it calls staff."""
    if not user.is_staff:
        before = _describe(user)
        user.is_staff = True
        user.save(update_fields=["is_staff"])
        audit.record(actor, "user.updated", user, before=before, after=_describe(user))


def _fill(user: User, person: Person, password: str | None) -> None:
    """Take over what is given. Raises InvalidFields."""
    for name, value in asdict(person).items():
        setattr(user, name, value)
    user.is_staff = True
    wrong: dict[str, str] = {}
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        wrong |= {name: " ".join(told) for name, told in error.message_dict.items()}
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            wrong["password"] = " ".join(error.messages)
    if wrong:
        raise InvalidFields.from_fields(wrong)
    if password is not None:
        user.set_password(password)


def _save(user: User) -> None:
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:  # somebody else was quicker
        raise InvalidFields.from_fields({"username": "A user with that username already exists."}) from None


def _lock_user(user_id: int) -> User:
    user = User.objects.select_for_update().filter(id=user_id).first()
    if user is None:
        raise NotFound("User not found")
    return user


def _lock_membership(tenant_id: UUID, membership_id: UUID) -> TenantMembership:
    rows = TenantMembership.objects.select_for_update(of=("self",)).select_related("user")
    membership = rows.filter(tenant_id=tenant_id, id=membership_id).first()
    if membership is None:
        raise NotFound("Membership not found")
    return membership


def _problems(role: str) -> dict[str, str]:
    return {} if role in Role.values else {"role": f"choose one of {', '.join(Role.values)}"}


def _describe(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "email": user.email,
        "is_active": user.is_active,
        "is_staff": user.is_staff,
        "is_superuser": user.is_superuser,
    }


def _describe_membership(membership: TenantMembership) -> dict[str, Any]:
    return {"user": membership.user.username, "role": membership.role, "is_active": membership.is_active}
