"""The pages that take an install to another version: which one, what it would do, whether to, and what it has done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from schedules import cron, queries, remap, upgrades
from schedules.admin import confirm, display
from schedules.admin.base import actor_of, may_write
from schedules.errors import RemapFailed, SchedulingError
from schedules.models import AuditEvent, ExtensionInstall, ExtensionVersion, Schedule
from schedules.remap import Change, Fate, Step
from schedules.upgrades import UpgradePlan

# What stands in a choice instead of an endpoint.
DISABLE: Final = "disable"
PICK: Final = "pick-"
NAMED: Final = 20
Picks = Mapping[UUID, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One schedule of the plan; ``pick`` is what was chosen for one that has nowhere to go."""

    step: Step
    schedule: Schedule
    next_slot: datetime | None
    pick: str
    others: list[str]
    is_undecided: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Schedules that the upgrade treats alike."""

    name: str
    title: str
    rows: list[Row]


_TITLES: Final = {
    "blocking": "Need a decision",
    "enabled": "Come back enabled",
    "remapped": "Answered by another handler",
    "detached": "Stay disabled: the version has nothing for them, either",
    "unchanged": "Unchanged",
}


def other_versions(install: ExtensionInstall) -> list[ExtensionVersion]:
    """What the install can be taken to, the newest first. The install needs its version."""
    rows = ExtensionVersion.objects.filter(extension_id=install.extension_id).exclude(id=install.version_id)
    return list(rows.defer("manifest").order_by("-created_at", "-id"))


def button_of(install: ExtensionInstall) -> str:
    """What the way to the other versions is called on the install's page; empty where there are none."""
    versions = other_versions(install)
    if not versions:
        return ""
    return "Go back" if is_earlier(versions[0], install.version) else "Upgrade"


def is_earlier(version: ExtensionVersion, than: ExtensionVersion) -> bool:
    """Whether taking it is going back."""
    return version.created_at < than.created_at


def upgrade_view(model_admin: ModelAdmin[Any], request: HttpRequest, install: ExtensionInstall) -> HttpResponse:
    """Which version, then its plan, then the question, then do it; the form comes back to the same address."""
    if not may_write(request.user, tenant_id=install.tenant_id):
        raise PermissionDenied
    name = request.GET.get("version", "")
    if name == install.version.version:
        messages.info(request, f"{name} is installed already")
        return HttpResponseRedirect(display.address("extensioninstall_change", install.id))
    versions = other_versions(install)
    if all(version.version != name for version in versions):
        if name:
            messages.error(request, "The extension does not have this version any more")
        return _choose(model_admin, request, install, versions)
    try:
        plan = upgrades.preview(install=install, version=name)
        return _Upgrading(model_admin, request, install).answer(plan)
    except SchedulingError as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(request.path)


def _choose(
    model_admin: ModelAdmin[Any], request: HttpRequest, install: ExtensionInstall, versions: list[ExtensionVersion]
) -> HttpResponse:
    choices = [
        {"version": version, "query": urlencode({"version": version.version}), "is_back": is_earlier(version, current)}
        for current in [install.version]
        for version in versions
    ]
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Another version of {install.extension}",
        "install": install,
        "choices": choices,
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "admin/schedules/upgrade_choose.html", context)


class _Upgrading:
    """One request on the way from a plan to an upgrade."""

    def __init__(self, model_admin: ModelAdmin[Any], request: HttpRequest, install: ExtensionInstall) -> None:
        self.model_admin, self.request, self.install = model_admin, request, install

    def answer(self, plan: UpgradePlan) -> HttpResponse:
        """What the form asks for, as far as the plan is still the one that was shown."""
        given = self.request.POST
        if self.request.method != "POST":
            return self.show(plan, {})
        offered = upgrades.offered_by(plan.target)
        picks = _read_picks(given, plan, offered)
        if given.get("plan_token") != plan.token:
            return self.show(plan, picks, is_changed=True)
        if "fill" in given:
            return self.show(plan, _filled(plan, picks, given["fill"]))
        if "edit" in given:
            return self.show(plan, picks)
        undecided = {step.schedule.id for step in plan.blocking} - set(picks)
        if undecided:
            return self.show(plan, picks, undecided=undecided)
        return self.apply(plan, picks) if "confirmed" in given else self.ask(plan, picks)

    def show(
        self, plan: UpgradePlan, picks: Picks, *, undecided: Collection[UUID] = (), is_changed: bool = False
    ) -> HttpResponse:
        """The plan, with what is chosen so far."""
        context = self.context(plan) | {
            "groups": _groups(plan, picks, undecided),
            "undecided": len(undecided),
            "is_changed": is_changed,
            "can_fill": len(plan.blocking) > 1,
            "has_suggestions": any(_likely(step) for step in plan.blocking),
        }
        return TemplateResponse(self.request, "admin/schedules/upgrade_plan.html", context)

    def ask(self, plan: UpgradePlan, picks: Picks) -> HttpResponse:
        """Whether to go on, with what will happen spelled out."""
        back = is_earlier(plan.target, plan.source)
        verb = "Go back" if back else "Upgrade"
        question = confirm.Question(
            f"{verb} from {plan.source.version} to {plan.target.version}?",
            _consequences(plan, picks),
            f"{verb} to {plan.target.version}",
        )
        hidden = {"plan_token": plan.token} | {f"{PICK}{schedule_id}": pick for schedule_id, pick in picks.items()}
        context = self.context(plan) | {"title": question.title, "question": question, "hidden": hidden}
        return TemplateResponse(self.request, "admin/schedules/upgrade_confirm.html", context)

    def apply(self, plan: UpgradePlan, picks: Picks) -> HttpResponse:
        """Do it, and go where the result is shown."""
        options = upgrades.Options(
            remap={str(schedule_id): pick for schedule_id, pick in picks.items() if pick != DISABLE},
            disable_missing=DISABLE in picks.values(),
            plan_token=plan.token,
        )
        ids = {"tenant_id": self.install.tenant_id, "install_id": self.install.id}
        actor = actor_of(self.request)
        try:
            upgrades.upgrade(**ids, version=plan.target.version, options=options, actor=actor)
        except upgrades.PlanChanged as error:
            return self.show(error.plan, _still_fitting(error.plan, picks), is_changed=True)
        except RemapFailed as error:
            missing = {UUID(item["scheduleId"]) for item in error.data["missing"]}
            return self.show(plan, picks, undecided=missing)
        # A repeat did nothing, and is shown what the first one did.
        events = AuditEvent.objects.filter(tenant_id=self.install.tenant_id, subject_id=self.install.id)
        event = events.filter(action="install.upgraded").order_by("-at", "-id").only("id").first()
        if event is None:
            return HttpResponseRedirect(display.address("extensioninstall_change", self.install.id))
        return HttpResponseRedirect(display.address("install_upgraded", self.install.id, event.id))

    def context(self, plan: UpgradePlan) -> dict[str, Any]:
        """What the plan and the question share."""
        back = is_earlier(plan.target, plan.source)
        return {
            **self.model_admin.admin_site.each_context(self.request),
            "title": f"{'Back to' if back else 'Upgrade to'} {plan.target.version}",
            "install": self.install,
            "plan": plan,
            "is_back": back,
            "opts": self.model_admin.opts,
        }


def _read_picks(given: Mapping[str, str], plan: UpgradePlan, offered: Collection[remap.Endpoint]) -> Picks:
    """The choices of the form that fit the plan. Others are left out, so that they are asked for again."""
    names = {str(endpoint) for endpoint in offered if not endpoint.unschedulable_reason} | {DISABLE}
    picks = {step.schedule.id: given.get(f"{PICK}{step.schedule.id}", "") for step in plan.blocking}
    return {schedule_id: pick for schedule_id, pick in picks.items() if pick in names}


def _still_fitting(plan: UpgradePlan, picks: Picks) -> Picks:
    given = {f"{PICK}{schedule_id}": pick for schedule_id, pick in picks.items()}
    return _read_picks(given, plan, upgrades.offered_by(plan.target))


def _filled(plan: UpgradePlan, picks: Picks, how: str) -> Picks:
    """The choices, with one for each schedule that has none yet: the likely suggestion, or to disable it."""
    filled = dict(picks)
    for step in plan.blocking:
        if how == DISABLE:
            filled.setdefault(step.schedule.id, DISABLE)
        elif fitting := _likely(step):
            filled.setdefault(step.schedule.id, str(fitting))
    return filled


def _likely(step: Step) -> remap.Endpoint | None:
    """The first suggestion that may be taken without a look: a similar path with another method may do the opposite."""
    for suggestion in step.suggestions:
        if suggestion.ground is not remap.Ground.NEAR_PATH or suggestion.endpoint.method == step.schedule.method:
            return suggestion.endpoint
    return None


def _groups(plan: UpgradePlan, picks: Picks, undecided: Collection[UUID]) -> list[Group]:
    """The plan's schedules by what becomes of them; groups without any are left out."""
    now = datetime.now(UTC)
    offered = [str(one) for one in upgrades.offered_by(plan.target) if not one.unschedulable_reason]
    groups: dict[str, list[Row]] = {name: [] for name in _TITLES}
    for step in plan.steps:
        schedule = plan.schedules[step.schedule.id]
        suggested = {str(suggestion.endpoint) for suggestion in step.suggestions}
        row = Row(
            step,
            schedule,
            _next_slot(step, schedule, plan, now=now),
            picks.get(schedule.id, ""),
            [name for name in offered if name not in suggested] if step.change is Change.BLOCK else [],
            schedule.id in undecided,
        )
        groups[_group_of(step)].append(row)
    return [Group(name, _TITLES[name], rows) for name, rows in groups.items() if rows]


def _next_slot(step: Step, schedule: Schedule, plan: UpgradePlan, *, now: datetime) -> datetime | None:
    """When it is due next; for one that comes back enabled, when that will be."""
    if step.change is Change.ENABLE and plan.install.is_enabled:
        return cron.next_slot(cron.parse(schedule.cron), cron.parse_zone(schedule.timezone), after=now)
    return queries.next_slot_of(schedule, after=now, install_enabled=plan.install.is_enabled)


def _group_of(step: Step) -> str:
    if step.change is Change.BLOCK:
        return "blocking"
    if step.change is Change.ENABLE:
        return "enabled"
    if step.target is None:
        return "detached"
    return "remapped" if step.fate is Fate.REMAPPED else "unchanged"


def _consequences(plan: UpgradePlan, picks: Picks) -> list[str]:
    """What will happen, line by line, with names where somebody has decided something."""
    groups = {group.name: group.rows for group in _groups(plan, picks, ())}
    lines = []
    kept = len(groups.get("unchanged", ())) + len(groups.get("remapped", ()))
    if kept:
        lines.append(f"{kept} schedule{' goes' if kept == 1 else 's go'} on with the same method and path.")
    decided = groups.get("blocking", [])
    moved = [f"{row.schedule} calls {row.pick} from now on." for row in decided if row.pick != DISABLE]
    off = [row for row in decided if row.pick == DISABLE]
    ends = [f"{row.schedule} {'is disabled' if row.step.schedule.enabled else 'stays disabled'}." for row in off]
    returning = [f"{row.schedule} is enabled again." for row in groups.get("enabled", ())]
    for named in (moved, ends, returning):
        lines += named[:NAMED]
        if len(named) > NAMED:
            lines.append(f"The same holds for {len(named) - NAMED} more.")
    detached = len(groups.get("detached", ()))
    if detached:
        lines.append(f"{detached} schedule{' stays' if detached == 1 else 's stay'} disabled, with nothing to call.")
    lines += [f"{warning}." for warning in plan.warnings]
    if off:
        lines.append("What is disabled comes back by itself on the way back, unless somebody changes it meanwhile.")
    return [*lines, "Everything changes at once or not at all. Runs that have begun end as they began."]


def result_view(
    model_admin: ModelAdmin[Any], request: HttpRequest, install: ExtensionInstall, event_id: int
) -> HttpResponse:
    """What an upgrade has done, as the audit trail tells it; so it can be looked up later, too."""
    events = AuditEvent.objects.filter(tenant_id=install.tenant_id)
    event = events.filter(id=event_id, subject_id=install.id, action="install.upgraded").first()
    if event is None:
        raise Http404("Upgrade not found")
    # Written by the same statement, so at the same moment.
    changes = list(events.filter(at=event.at, action="schedule.upgraded", id__gt=event.id).order_by("id"))
    rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id).defer("payload")
    schedules = rows.in_bulk([change.subject_id for change in changes])
    told = [(change, schedules.get(change.subject_id)) for change in changes]
    before, after = event.before or {}, event.after or {}
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"{install.extension}: from {before.get('version')} to {after.get('version')}",
        "install": install,
        "event": event,
        "counts": after.get("counts", {}),
        "groups": [(title, found) for title, found in _told(told) if found],
        "may_write": may_write(request.user, tenant_id=install.tenant_id),
        "source_query": urlencode({"version": before.get("version")}),
        "source_name": before.get("version"),
        "is_current": install.version.version == after.get("version"),
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "admin/schedules/upgrade_result.html", context)


Told = list[tuple[AuditEvent, Schedule | None]]


def _told(changes: Told) -> list[tuple[str, Told]]:
    """The schedules that became something else, by what."""
    off: Told = []
    on: Told = []
    moved: Told = []
    for change, schedule in changes:
        before, after = change.before or {}, change.after or {}
        if before.get("enabled") and not after.get("enabled"):
            off.append((change, schedule))
        if after.get("enabled") and not before.get("enabled"):
            on.append((change, schedule))
        if before.get("endpoint") != after.get("endpoint"):
            moved.append((change, schedule))
    return [("Disabled", off), ("Enabled again", on), ("Call another endpoint now", moved)]
