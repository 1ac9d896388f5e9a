"""What the views of the admin API share: the caller's install, pages, and the headers that guard a write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import idempotency, queries
from schedules.api import requests
from schedules.api.authentication import Caller
from schedules.api.fields import Query
from schedules.api.permissions import IsTenantCaller
from schedules.api.requests import TenantQuery
from schedules.errors import InvalidFields, NotFound, PermissionDenied
from schedules.models import ExtensionInstall, Schedule, Tenant

MAX_IDEMPOTENCY_KEY_LENGTH = 255


class Cursor(CursorPagination):
    """Pages of a list, in the order that the checked query asks for; the first of ``orders`` unless it does."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = requests.MAX_PAGE_SIZE

    def __init__(self, orders: Mapping[str, tuple[str, ...]]) -> None:
        self.orders = orders

    def decode_cursor(self, request: Request) -> Any:
        """Where the page begins; raises InvalidFields for a made-up place."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                is_moment = datetime.fromisoformat(str(cursor.position)).tzinfo is not None
            except ValueError:
                is_moment = False
            if not is_moment:
                raise InvalidFields.from_fields({"cursor": "cursor must be taken from next or previous of an answer"})
        return cursor

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: APIView) -> tuple[str, ...]:
        """The columns that the page is ordered by."""
        return self.orders[request.query_params.get("order", next(iter(self.orders)))]


class TenantCallerView(APIView):
    """Base of the admin API's views: who calls, and what they may do in which tenant."""

    permission_classes = (IsTenantCaller,)
    read_methods: ClassVar[frozenset[str]] = frozenset({"GET", "HEAD", "OPTIONS"})

    # What may stand behind the question mark, by method; nothing where a method is not named.
    parameters: ClassVar[Mapping[str, type[Query]]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check who calls, then the parameters: a misspelt one must not pass for none."""
        super().initial(request, *args, **kwargs)
        method = request.method or ""
        if hasattr(self, method.lower()):  # another one is refused for what it is, and not for its parameters
            self.query = self.parameters.get(method, Query).read(request.query_params)

    def check(self, request: Request, *, tenant_id: UUID) -> None:
        """Raise PermissionDenied where the caller's role is not enough for the request's method."""
        needed = "extension:read" if request.method in self.read_methods else "extension:write"
        if not Caller(request).may(needed, tenant_id=tenant_id):
            raise PermissionDenied(f"This needs the permission {needed}")

    def id_in_address(self, name: str, what: str) -> UUID:
        """An id of the address; one that is no UUID names nothing."""
        found = queries.parse_uuid(self.kwargs[name])
        if found is None:
            raise NotFound(f"{what} not found")
        return found


class TenantView(TenantCallerView):
    """Base of the views that are about a tenant and no install: the key's, or the one that ``tenant_id`` names."""

    parameters = dict.fromkeys(("GET", "POST", "PATCH", "DELETE"), TenantQuery)

    def tenant(self, request: Request) -> Tenant:
        """The tenant that the request is about; one that the caller does not work in is as unknown as none."""
        known = Caller(request).tenant_ids
        wanted: UUID | None = self.query.get("tenant_id")
        if wanted is None and known is not None and len(known) == 1:
            wanted = known[0]
        if wanted is None and known is not None and not known:
            raise PermissionDenied("You do not work in any tenant")
        if wanted is None:
            raise InvalidFields.from_fields({"tenant_id": "you work in several tenants, name one: ?tenant_id="})
        tenant = Tenant.objects.filter(id=wanted).first() if known is None or wanted in known else None
        if tenant is None:
            raise NotFound("Tenant not found")
        self.check(request, tenant_id=tenant.id)
        return tenant


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


def page_answer(
    view: APIView,
    request: Request,
    rows: QuerySet[Any],
    *,
    orders: Mapping[str, tuple[str, ...]],
    render: Callable[[Any], dict[str, Any]],
) -> Response:
    """The page of the rows that the checked query names."""
    paginator = Cursor(orders)
    page = paginator.paginate_queryset(rows, request, view=view)
    return paginator.get_paginated_response([render(row) for row in page or []])


def read_nothing(request: Request) -> None:
    """For what takes no body: an empty object will do, members that would be ignored are refused."""
    requests.Nothing(data=request.data or {}).is_valid(raise_exception=True)


def answer_once(
    request: Request, install: ExtensionInstall, *, operation: str, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The work's answer; a repeat under the same ``Idempotency-Key`` gets that of the first."""
    key = idempotency_key(request)
    if key is None:
        return work()
    digest = idempotency.digest_of(request.data)
    repeatable = idempotency.Repeatable(install.tenant_id, install.id, operation, key, digest)
    return idempotency.once(repeatable, work)


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
