"""What the pages share: the tenant border, and who may do what behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin, ShowFacets, SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from schedules import audit, queries
from schedules.errors import SchedulingError
from schedules.models import Role, ScheduleRun, Tenant

WRITE = "extension:write"
MAX_COUNTED = 5000
# What is done to many rows at once is done while somebody waits, and to no more than they can have looked at.
MAX_AT_ONCE = 200
# So many are named where several were refused for the same reason.
MAX_NAMED = 5


def actor_of(request: HttpRequest) -> audit.Actor:
    """The signed-in user as the audit trail names them."""
    return audit.Actor(audit.Source.ADMIN, request.user.get_username())


class CappedPaginator(Paginator[Any]):
    """Counts no further than somebody would turn pages: counting a million rows takes longer than showing fifty.

    What lies beyond is reached by filters and the search.
    """

    @cached_property
    def count(self) -> int:
        """How many rows there are, at most `MAX_COUNTED`."""
        return int(cast("QuerySet[Any]", self.object_list).order_by()[:MAX_COUNTED].count())


class WordsFilter(SimpleListFilter):
    """A filter by one column with values that are known beforehand, shown as words."""

    values: ClassVar[Sequence[str]] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The values, as words."""
        return [(value, in_words(value)) for value in self.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with the value."""
        return queryset.filter(**{self.parameter_name or "": self.value()}) if self.value() in self.values else queryset


class TenantFilter(SimpleListFilter):
    """By tenant, for those who see several: the first few of them, and the one that is chosen."""

    title = "tenant"
    parameter_name = "tenant"
    SHOWN = 20

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The tenants, by name."""
        tenants = visible_tenants(request.user)
        rows = Tenant.objects.all() if tenants is None else Tenant.objects.filter(id__in=tenants)
        found = {str(key): name for key, name in rows.values_list("id", "name")[: self.SHOWN]}
        chosen = queries.parse_uuid(request.GET.get("tenant", ""))
        if chosen is not None and str(chosen) not in found:
            found |= {str(key): name for key, name in rows.filter(id=chosen).values_list("id", "name")}
        return list(found.items()) if len(found) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of the tenant, among those that may be seen."""
        chosen = queries.parse_uuid(self.value() or "")
        return queryset if chosen is None else queryset.filter(tenant_id=chosen)


def words_filter(column: str, values: Sequence[str], *, title: str = "") -> type[WordsFilter]:
    """A filter of that kind."""
    members = {"title": title or column.replace("_", " "), "parameter_name": column, "values": values}
    return type(f"{column.title()}Filter", (WordsFilter,), members)


def in_words(value: str) -> str:
    """A value of ours as words."""
    return re.sub(r"\bapi\b", "API", capfirst(value.replace("_", " ")), flags=re.IGNORECASE)


class ScopedList(ChangeList):
    """Sorts by nothing but what its links sort by, and knows which rows the reader may do something to."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """The order that the address asks for, without the columns that cannot be sorted by: Django lets them pass."""
        kept: dict[int, str] = {}
        for part in self.params.pop(ORDER_VAR, "").split("."):
            try:
                column = int(part.rpartition("-")[2])
                if self.list_display[column] in (self.sortable_by or ()):
                    kept.setdefault(column, part)
            except (IndexError, ValueError):
                continue
        if kept:
            self.params[ORDER_VAR] = ".".join(kept.values())
        return list(super().get_ordering(request, queryset))

    def get_results(self, request: HttpRequest) -> None:
        """The rows of one page of the list."""
        super().get_results(request)
        rows = list(self.result_list)
        for row in rows:
            row.may_be_selected = may_write(request.user, tenant_id=getattr(row, "tenant_id", None))
        self.result_list = rows


class TenantScopedAdmin(ModelAdmin[Any]):
    """Shows a member the rows of their tenants, and nothing that could be changed past the services.

    ``tenant_lookup`` leads from the model to the tenant's id. Superusers see every tenant.
    """

    tenant_lookup: ClassVar[str] = "tenant_id"
    # What an empty list says.
    empty_hint: ClassVar[str] = ""
    # Whether rows are found by the names of extensions, too; ``search_fields`` then has publisher and name.
    finds_extensions: ClassVar[bool] = False
    list_per_page = 50
    paginator = CappedPaginator
    show_full_result_count = False
    # Counting a million rows for each choice of each filter takes longer than anybody waits.
    show_facets = ShowFacets.NEVER

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows that the user may see."""
        rows = super().get_queryset(request)
        tenants = visible_tenants(request.user)
        return rows if tenants is None else rows.filter(**{f"{self.tenant_lookup}__in": tenants})

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, under the name of what it lists."""
        context = {
            "title": capfirst(self.opts.verbose_name_plural),
            "empty_hint": self.empty_hint,
            "max_at_once": MAX_AT_ONCE,
        }
        context |= extra_context or {}
        return super().changelist_view(request, context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Our list."""
        return ScopedList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Those in which every word is found."""
        if self.finds_extensions:
            search_term = " ".join(queries.words_of_extension(search_term)) or search_term
        return super().get_search_results(request, queryset, search_term)

    def action_checkbox(self, obj: Any) -> SafeString:
        """The checkbox, where the reader may do anything to the row."""
        return super().action_checkbox(obj) if getattr(obj, "may_be_selected", True) else SafeString()

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any, **named: Any) -> Any:
        """Do it to the selected rows; to none where they are more than somebody can have looked at."""
        posted = request.POST.copy()
        # What is no row's id is as if it were not selected.
        ids = [text for text in posted.getlist(ACTION_CHECKBOX_NAME) if queries.parse_uuid(text) is not None]
        posted.setlist(ACTION_CHECKBOX_NAME, ids)
        cast("Any", request).POST = posted
        count = queryset.order_by()[: MAX_AT_ONCE + 1].count() if selects_all(request) else len(ids)
        if count > MAX_AT_ONCE:
            hint = "select fewer, or fit the list by its filters and the search"
            messages.error(request, f"Nothing was done: at most {MAX_AT_ONCE} at once, {hint}")
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *more, **named)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """The form, with one button to save it, and above it what a service refused after the form was checked."""
        context = {"show_save_and_add_another": False, "show_save_and_continue": False, **(extra_context or {})}
        try:
            return super().changeform_view(request, object_id, form_url, context)
        except SchedulingError as error:
            if request.method != "POST":
                raise
            # Somebody else was quicker.
            messages.error(request, error.message)
            return HttpResponseRedirect(request.get_full_path())

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow what the filters of the page ask for, and nothing else.

        Django allows every member of the row, by which hidden ones could be guessed letter by letter.
        """
        return any(lookup in _lookups_of(self.model, item) for item in self.list_filter)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the user sees this kind of row at all."""
        return is_superuser(request.user) or is_member(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may look; which rows is `get_queryset`'s."""
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nothing is added here unless a page says so."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is changed here unless a page says so."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is deleted here unless a page says so."""
        return False


def _lookups_of(model: type[Model], item: Any) -> set[str]:
    """The lookups that a filter asks for, each in full: whatever else begins like one may lead to other tables."""
    if isinstance(item, type) and issubclass(item, SimpleListFilter):
        name = str(item.parameter_name)
        # A column of the model, which may be asked for as Django's own filters do.
        return {name, f"{name}__exact"} if issubclass(item, WordsFilter) else {name}
    name = item[0] if isinstance(item, tuple) else item
    if get_fields_from_path(model, name)[-1].is_relation:
        return {f"{name}__id__exact", f"{name}__isnull"}
    return {name, f"{name}__exact", f"{name}__isnull"}


def selects_all(request: HttpRequest) -> bool:
    """Whether an action is to be done to all that the list has, and not only to what is selected on its page."""
    return request.POST.get("select_across", "") not in {"", "0"}


class OperatorAdmin(TenantScopedAdmin):
    """For what belongs to the platform: superusers alone see it."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Everything, or nothing: some pages look for the row before they ask whether it may be seen."""
        rows = ModelAdmin.get_queryset(self, request)
        return rows if is_superuser(request.user) else rows.none()

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the user is an operator."""
        return is_superuser(request.user)


def is_superuser(user: User | AnonymousUser) -> bool:
    """Whether the user is an active operator."""
    return user.is_active and user.is_superuser


def require_operator(request: HttpRequest) -> None:
    """Refuse everybody else."""
    if not is_superuser(request.user):
        raise PermissionDenied


def roles_of(user: Any) -> Mapping[UUID, Role]:
    """The user's role in each of their tenants. Read once for a request, however many rows ask."""
    if not user.is_active or not user.is_staff:
        return {}
    if not hasattr(user, "_tenant_roles"):
        memberships = user.tenant_memberships.filter(is_active=True).values_list("tenant_id", "role")
        user._tenant_roles = {tenant_id: Role(role) for tenant_id, role in memberships}  # noqa: SLF001 - our own mark
    roles: Mapping[UUID, Role] = user._tenant_roles  # noqa: SLF001
    return roles


def visible_tenants(user: Any) -> Sequence[UUID] | None:
    """The tenants whose rows the user may see; None means all of them (operators)."""
    return None if is_superuser(user) else list(roles_of(user))


def is_member(user: Any) -> bool:
    """Whether the user works in any tenant."""
    return bool(roles_of(user))


def may_write(user: Any, *, tenant_id: Any = None) -> bool:
    """Whether the user may change what a tenant owns; without a tenant: in any."""
    if is_superuser(user):
        return True
    roles = roles_of(user)
    asked = roles.values() if tenant_id is None else [roles[tenant_id]] if tenant_id in roles else []
    return any(WRITE in role.permissions for role in asked)


def act_on_each(request: HttpRequest, rows: QuerySet[Any], act: Callable[..., object], *, done: str) -> None:
    """Do it row by row and tell what became of them; a refused one does not keep the others from it.

    ``act`` takes the row's ids as the services do (``tenant_id``, ``install_id``, and its own) and the actor.
    """
    noun = "run" if rows.model is ScheduleRun else "schedule"
    count = 0
    refused: dict[str, list[str]] = {}
    for row in rows:
        if not may_write(request.user, tenant_id=row.tenant_id):
            refused.setdefault(f"you may not change this tenant's {noun}s", []).append(str(row))
            continue
        try:
            act(
                tenant_id=row.tenant_id,
                install_id=row.install_id,
                actor=actor_of(request),
                **{f"{noun}_id": row.id},
            )
        except SchedulingError as error:
            refused.setdefault(error.message, []).append(str(row))
        else:
            count += 1
    for reason, names in refused.items():
        messages.error(request, _refusal(noun, names, reason))
    if count:
        messages.success(request, f"{count} {noun}{'s' if count != 1 else ''} {done}")


def _refusal(noun: str, names: Sequence[str], reason: str) -> str:
    """A reason, and whom it kept: told once, however many they are."""
    if len(names) == 1:
        return f"{names[0]}: {reason}"
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{len(names)} {noun}s refused: {reason} ({', '.join(names[:MAX_NAMED])}{more})"
