"""Who calls: a tenant's API key, a signed-in user, or one of the platform's services."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from schedules import api_keys, queries
from schedules.audit import Actor, Source
from schedules.errors import NotAuthenticated
from schedules.models import ApiKey, Role


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Api-Key <key>``; the key stands for one tenant and one role."""

    keyword = "Api-Key"

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ApiKey] | None:
        """Return the key, or None where the request carries none."""
        scheme, _, text = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != self.keyword.lower():
            return None
        key = api_keys.find_key(text.strip())
        if key is None:
            raise AuthenticationFailed("The API key is unknown, expired or revoked")
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        """What a 401 asks for."""
        return self.keyword


class Caller:
    """An authenticated caller of the admin API: which tenants it may see and what it may do there."""

    def __init__(self, request: Request) -> None:
        self.key = request.auth if isinstance(request.auth, ApiKey) else None
        self.user: Any = request.user

    @property
    def tenant_ids(self) -> list[UUID] | None:
        """The tenants the caller may read; None means all."""
        if self.key is not None:
            return [self.key.tenant_id]
        tenants = queries.visible_tenants(self.user)
        return None if tenants is None else list(tenants)

    def may(self, permission: str, *, tenant_id: UUID) -> bool:
        """Whether the caller holds a permission in the tenant."""
        if self.key is not None:
            return self.key.tenant_id == tenant_id and permission in Role(self.key.role).permissions
        if self.user.is_superuser:
            return True
        membership = self.user.tenant_memberships.filter(tenant_id=tenant_id, is_active=True).first()
        return membership is not None and permission in Role(membership.role).permissions

    @property
    def actor(self) -> Actor:
        """The caller as the audit trail names it."""
        name = f"API key {self.key.prefix}" if self.key is not None else self.user.get_username()
        return Actor(Source.ADMIN_API, name)


def require_service_token(request: Request, *, header: str, tokens: Iterable[str]) -> None:
    """Raise NotAuthenticated unless the header holds one of the configured tokens.

    Compared in constant time and against all of them, so that timing tells nothing about which one was near.
    """
    presented = request.headers.get(header, "").encode()
    matches = [hmac.compare_digest(presented, token.encode()) for token in tokens]
    if not any(matches):
        raise NotAuthenticated(f"{header} is missing or wrong")
