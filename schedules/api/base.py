"""What the views of the admin API share: the caller's install, pages, and the headers that guard a write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView

from schedules import queries
from schedules.api import requests
from schedules.api.authentication import Caller
from schedules.api.permissions import IsTenantCaller
from schedules.errors import InvalidFields, NotFound, PermissionDenied
from schedules.models import ExtensionInstall, Schedule

MAX_IDEMPOTENCY_KEY_LENGTH = 255


class Cursor(CursorPagination):
    """Pages of a list, in the order that the checked query asks for; the first of ``orders`` unless it does."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = requests.MAX_PAGE_SIZE

    def __init__(self, orders: Mapping[str, tuple[str, ...]]) -> None:
        self.orders = orders

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: APIView) -> tuple[str, ...]:
        """The columns that the page is ordered by."""
        return self.orders[request.query_params.get("order", next(iter(self.orders)))]


class TenantCallerView(APIView):
    """Base of the admin API's views: who calls, and what they may do in which tenant."""

    permission_classes = (IsTenantCaller,)
    read_methods: ClassVar[frozenset[str]] = frozenset({"GET", "HEAD", "OPTIONS"})

    def check(self, request: Request, *, tenant_id: UUID) -> None:
        """Raise PermissionDenied where the caller's role is not enough for the request's method."""
        needed = "extension:read" if request.method in self.read_methods else "extension:write"
        if not Caller(request).may(needed, tenant_id=tenant_id):
            raise PermissionDenied(f"This needs the permission {needed}")

    def tenant(self, request: Request) -> UUID:
        """The tenant that the request is about: the key's, the user's only one, or what ``?tenant_id=`` names."""
        known = Caller(request).tenant_ids
        text = request.query_params.get("tenant_id")
        if text is not None:
            wanted = queries.parse_uuid(text)
            if wanted is None or (known is not None and wanted not in known):
                raise NotFound("Tenant not found")
        elif known is not None and len(known) == 1:
            wanted = known[0]
        else:
            raise InvalidFields.from_fields({"tenant_id": "you work in several tenants, name one: ?tenant_id="})
        self.check(request, tenant_id=wanted)
        return wanted

    def id_in_address(self, name: str, what: str) -> UUID:
        """An id of the address; one that is no UUID names nothing."""
        found = queries.parse_uuid(self.kwargs[name])
        if found is None:
            raise NotFound(f"{what} not found")
        return found


class InstallView(TenantCallerView):
    """Base of every view below one extension: finds the caller's install and checks the tenant permission."""

    def install(self, request: Request) -> ExtensionInstall:
        """The install the address names; another tenant's is as unknown as none."""
        caller = Caller(request)
        install = queries.find_install(tenant_ids=caller.tenant_ids, extension_ref=self.kwargs["extension_ref"])
        self.check(request, tenant_id=install.tenant_id)
        return install

    def schedule(self, install: ExtensionInstall) -> Schedule:
        """The schedule that the address names."""
        schedule_id = self.id_in_address("schedule_id", "Schedule")
        return queries.find_schedule(tenant_id=install.tenant_id, install_id=install.id, schedule_id=schedule_id)


def idempotency_key(request: Request) -> str | None:
    """What makes a repeat of the request recognisable, or None; raises InvalidFields for an unusable one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidFields.from_fields(
            {"Idempotency-Key": f"give 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} characters, or leave the header out"}
        )
    return key
