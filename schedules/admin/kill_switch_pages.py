"""Where operators stop a tenant, an extension, a version or everything, and where others read that it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from schedules import kill_switches, queries
from schedules.admin import confirm
from schedules.admin.base import actor_of, is_superuser, require_operator
from schedules.errors import InvalidFields, RefusedByRule
from schedules.kill_switches import Target
from schedules.models import (
    MAX_KILL_REASON_LENGTH,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    KillScope,
    KillSwitch,
    Schedule,
    Tenant,
)

SHOWN: Final = 20
# What leads from an install to what a switch of this scope is about.
_MEMBERS: Final = {KillScope.TENANT: "tenant_id", KillScope.EXTENSION: "extension_id", KillScope.VERSION: "version_id"}
Choice = tuple[str, str, str]


class ReasonForm(forms.Form):
    """Why it is stopped."""

    reason = forms.CharField(
        max_length=MAX_KILL_REASON_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Everybody who is concerned reads it: on their pages, and at each run that does not begin.",
    )


def over_installs(tenants: Sequence[UUID] | None) -> list[KillSwitch]:
    """The switches over any install of these tenants; None means all that stand. One statement where none stands."""
    standing = kill_switches.standing()
    if not standing or tenants is None:
        return standing
    installs = ExtensionInstall.objects.filter(tenant_id__in=tenants).only("tenant_id", "extension_id", "version_id")
    over = (kill_switches.find_among(standing, install) for install in installs)
    return list({switch.id: switch for switch in over if switch is not None}.values())


def engage_view(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """First what is to be stopped; then why, with what will happen spelled out; then do it."""
    require_operator(request)
    try:
        scope = KillScope(request.GET.get("scope", ""))
    except ValueError as error:
        raise Http404("There is no such kill switch") from error
    name = "" if scope == KillScope.PLATFORM else request.GET.get("target", "")
    if not name and scope != KillScope.PLATFORM:
        return _choose(site, request, scope)
    try:
        target = kill_switches.find_target(scope=scope, name=name)
    except RefusedByRule as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(f"{request.path}?{urlencode({'scope': scope})}")
    form = ReasonForm(request.POST if request.method == "POST" else None)
    standing = KillSwitch.objects.filter(scope=target.scope, target_id=target.id).first()
    if form.is_valid() and standing is None:
        try:
            return _engage(request, target, form.cleaned_data["reason"])
        except InvalidFields as error:
            form.add_error("reason", error.message)
    title = f"Stop {_called(target)}?"
    context = {
        **site.each_context(request),
        "title": title,
        "form": form,
        "standing": standing,
        "scope": scope,
        "question": confirm.Question(title, _consequences(target), "Stop it", is_destructive=True),
    }
    return TemplateResponse(request, "admin/kill_switch.html", context)


def _engage(request: HttpRequest, target: Target, reason: str) -> HttpResponse:
    kill_switches.engage(target, reason=reason, actor=actor_of(request))
    messages.warning(request, f"Stopped: {_called(target)}. No call begins until this is released")
    return HttpResponseRedirect(_back())


def _choose(site: AdminSite, request: HttpRequest, scope: KillScope) -> HttpResponse:
    search = request.GET.get("q", "").replace("\x00", "").strip()
    choices = [
        (urlencode({"scope": scope, "target": key}), label, detail) for key, label, detail in _choices(scope, search)
    ]
    context = {
        **site.each_context(request),
        "title": f"Stop which {scope.label}?",
        "scope": scope,
        "search": search,
        "choices": choices[:SHOWN],
        "has_more": len(choices) > SHOWN,
    }
    return TemplateResponse(request, "admin/kill_switch_target.html", context)


def _choices(scope: KillScope, search: str) -> list[Choice]:
    """What can be stopped and fits the search, each with its id, its name, and what tells it from others."""
    ref = queries.parse_uuid(search)
    by_id = Q(id=ref) if ref else Q(pk__in=())
    limit = SHOWN + 1
    if scope == KillScope.TENANT:
        tenants = Tenant.objects.filter(Q(name__icontains=search) | by_id).order_by("name", "id")
        return [(str(row.id), row.name, str(row.id)) for row in tenants[:limit]]
    if scope == KillScope.EXTENSION:
        extensions = Extension.objects.filter(queries.fits_extension(search) if ref is None else by_id)
        return [(str(row.id), row.slug, str(row.id)) for row in extensions.order_by("publisher", "name")[:limit]]
    versions = ExtensionVersion.objects.select_related("extension").defer("manifest")
    for word in search.replace("@", " ").split() if ref is None else ():
        of_extension = Q(extension__publisher__icontains=word) | Q(extension__name__icontains=word)
        slugs = Q(extension__publisher=word.partition(".")[0], extension__name=word.partition(".")[2])
        versions = versions.filter(of_extension | slugs | Q(version__icontains=word))
    if ref is not None:
        versions = versions.filter(Q(id=ref) | Q(extension_id=ref))
    newest = versions.order_by("extension__publisher", "extension__name", "-created_at")
    return [(str(row.id), f"{row.extension.slug} {row.version}", row.content_hash[:12]) for row in newest[:limit]]


def release_view(site: AdminSite, request: HttpRequest, switch_id: UUID) -> HttpResponse:
    """Ask, and let it run again."""
    require_operator(request)
    switch = KillSwitch.objects.filter(id=switch_id).first()
    if switch is None:
        messages.info(request, "This kill switch does not stand any more")
        return HttpResponseRedirect(_back())
    target = Target(KillScope(switch.scope), switch.target_id, switch.target)
    if request.method == "POST" and "confirmed" in request.POST:
        try:
            kill_switches.release(switch_id=switch_id, actor=actor_of(request))
        except RefusedByRule as error:
            messages.info(request, error.message)
        else:
            messages.success(request, f"Released: {_called(target)}. Slots run again from now on")
        return HttpResponseRedirect(_back())
    lines = [
        f"{_concerned(target)}: they run again from their next slots, unless another kill switch stands over them.",
        "Slots of the time between stay as they ended and are not made up for.",
    ]
    question = confirm.Question(f"Release {_called(target)}?", lines, "Release")
    told = {"title": question.title, "question": question, "switch": switch, "back": _back()}
    return TemplateResponse(request, "admin/kill_switch_release.html", {**site.each_context(request), **told})


def _consequences(target: Target) -> list[str]:
    return [
        f"{_concerned(target)}: they stop running, and nobody can run them by hand.",
        "Slots that come meanwhile end as skipped, with the reason, and are not made up for.",
        "Calls that are under way go on to their end; a run that waits for another attempt is cancelled.",
        "It holds from the next claim on, until an operator releases it. Schedules stay as they are.",
    ]


def _concerned(target: Target) -> str:
    """How many enabled schedules, of how many enabled installs, in how many tenants."""
    installs, schedules = ExtensionInstall.objects.filter(is_enabled=True), Schedule.objects.filter(enabled=True)
    schedules = schedules.filter(install__is_enabled=True)
    if target.scope != KillScope.PLATFORM:
        member = _MEMBERS[target.scope]
        installs = installs.filter(**{member: target.id})
        schedules = schedules.filter(**{f"install__{member}": target.id})
    counted = installs.aggregate(installs=Count("id"), tenants=Count("tenant_id", distinct=True))
    parts = [(schedules.count(), "enabled schedule"), (counted["installs"], "install"), (counted["tenants"], "tenant")]
    enabled, of, inside = (f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in parts)
    return f"{enabled} of {of} in {inside}"


def _called(target: Target) -> str:
    return f"{target.scope.label} {target.label}".strip()


def _back() -> str:
    return f"{reverse('admin:operations')}#kill-switches"


def notices(request: HttpRequest, switches: Sequence[KillSwitch | None]) -> list[dict[str, Any]]:
    """What the pages under a switch say of it. By whom is for operators."""
    names = is_superuser(request.user)
    return [
        {"id": switch.id, "what": str(switch), "since": switch.created_at, "reason": switch.reason}
        | ({"actor": switch.actor} if names else {})
        for switch in switches
        if switch is not None
    ]
