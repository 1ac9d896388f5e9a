"""The admin's frame: its home page, its navigation, and the operators' pages.

Beside the package of the pages and not in it: that one registers its pages with this site while it is imported, so
everything of it is imported here when a page is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern, URLResolver


@dataclass(frozen=True, slots=True)
class Entry:
    """A place to go to."""

    text: str
    url: str
    is_current: bool


_MEMBERS_PLACES = (
    ("Schedules", "schedules_schedule_changelist"),
    ("Runs", "schedules_schedulerun_changelist"),
    ("Extensions", "schedules_extensioninstall_changelist"),
    ("Notification channels", "schedules_notificationchannel_changelist"),
    ("API keys", "schedules_apikey_changelist"),
    ("Audit trail", "schedules_auditevent_changelist"),
)
_OPERATORS_PLACES = (
    ("Sync and limits", "operations"),
    ("Load", "load"),
    ("Tenants", "schedules_tenant_changelist"),
    ("Members", "schedules_tenantmembership_changelist"),
    ("Users", "auth_user_changelist"),
    ("Registry", "schedules_extension_changelist"),
    ("Versions", "schedules_extensionversion_changelist"),
    ("Endpoints", "schedules_apiendpoint_changelist"),
    ("Notifications", "schedules_notification_changelist"),
)


# What Django brings along and no page of ours uses.
_UNUSED = ("autocomplete", "view_on_site")


class SchedulerAdminSite(AdminSite):
    """What tenant administrators and operators work in."""

    site_title = "Extension scheduler"
    site_header = "Extension scheduler"
    index_title = "Home"
    enable_nav_sidebar = False
    site_url = None
    index_template = "admin/index.html"

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """What every page needs: the navigation."""
        from schedules.admin import base

        is_operator = base.is_superuser(request.user)
        has_place = is_operator or base.is_member(request.user)
        return super().each_context(request) | {
            "places": _entries(request, _MEMBERS_PLACES) if has_place else [],
            "operators_places": _entries(request, _OPERATORS_PLACES) if is_operator else [],
        }

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The home page."""
        from schedules.admin import home

        return super().index(request, {**home.context(request), **(extra_context or {})})

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002
        """A page behind the login, asked for nothing that the database or Django stumbles over."""

        @wraps(view)
        def guarded(request: Any, *arguments: Any, **named: Any) -> Any:
            request.GET = _without_nul(request.GET)
            if "" in (request.GET.get("_to_field"), request.POST.get("_to_field")):
                raise BadRequest("An empty name is no column's")
            return view(request, *arguments, **named)

        return super().admin_view(guarded, cacheable)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The login, with our form."""
        from schedules import sign_in

        self.login_form = sign_in.SignInForm
        return super().login(request, extra_context)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """A new password of one's own, by a form that knows the request."""
        from django.contrib.auth.views import PasswordChangeView

        from schedules import sign_in

        form = type("OwnPasswordForm", (sign_in.OwnPasswordForm,), {"request": request})
        view = PasswordChangeView.as_view(
            form_class=form,
            success_url=reverse("admin:password_change_done"),
            extra_context={**self.each_context(request), **(extra_context or {})},
            template_name=self.password_change_template or "registration/password_change_form.html",
        )
        return cast("TemplateResponse", view(request))

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """The operators' pages before the models'."""
        from schedules.admin import kill_switch_pages, operations

        def guarded(view: Any) -> Any:
            def inner(request: HttpRequest, **arguments: Any) -> HttpResponse:
                answer: HttpResponse = view(self, request, **arguments)
                return answer

            return self.admin_view(inner)

        return [
            path("operations/", guarded(operations.operations_view), name="operations"),
            path("operations/kill-switch/", guarded(kill_switch_pages.engage_view), name="engage_kill_switch"),
            path(
                "operations/kill-switch/<uuid:switch_id>/release/",
                guarded(kill_switch_pages.release_view),
                name="release_kill_switch",
            ),
            path("load/", guarded(operations.load_view), name="load"),
            *(entry for entry in super().get_urls() if getattr(entry, "name", None) not in _UNUSED),
        ]


def _without_nul(given: QueryDict) -> QueryDict:
    """What an address asks for, without the character that PostgreSQL cannot hold."""
    if not any("\x00" in text for name, values in given.lists() for text in (name, *values)):
        return given
    cleaned = QueryDict(mutable=True)
    for name, values in given.lists():
        cleaned.setlist(name.replace("\x00", ""), [value.replace("\x00", "") for value in values])
    return cleaned


def _entries(request: HttpRequest, places: tuple[tuple[str, str], ...]) -> list[Entry]:
    entries = []
    for text, name in places:
        url = reverse(f"admin:{name}")
        entries.append(Entry(text, url, request.path.startswith(url)))
    return entries
