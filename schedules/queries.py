"""Reads, each scoped to who asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Concat

from schedules import cron, endpoints, manifests
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import ApiEndpoint, Extension, ExtensionInstall, Schedule, ScheduleRun

ENDPOINT_REFUSED = "Endpoint not found or not schedulable"


@dataclass(frozen=True, slots=True)
class EndpointSelector:
    """What a caller names an endpoint by: a path, and the method unless it leaves that open."""

    method: str | None
    path: str


def parse_endpoint_selector(text: str) -> EndpointSelector:
    """Read ``"METHOD /path"`` or a path alone; raises ValueError where it is neither."""
    first, _, rest = text.strip().partition(" ")
    if rest and not first.startswith("/"):
        return EndpointSelector(manifests.normalise_method(first), manifests.normalise_path(rest))
    if not first:
        raise ValueError('write "METHOD /path" or a path')
    return EndpointSelector(None, manifests.normalise_path(text))


def find_install(*, tenant_ids: Sequence[UUID] | None, extension_ref: str) -> ExtensionInstall:
    """The install that ``extension_ref`` names: a registry id, a slug ``publisher.name`` or an install id.

    Only within ``tenant_ids`` (None: anywhere). Raises NotFound, and Conflict where several tenants of the caller
    have the extension.
    """
    installs = (
        ExtensionInstall.objects.select_related("tenant", "extension", "version")
        .defer("config", "secret_envelope", "version__manifest")
        .order_by("id")
    )
    if tenant_ids is not None:
        installs = installs.filter(tenant_id__in=tenant_ids)
    if (ref := parse_uuid(extension_ref)) is not None:
        installs = installs.filter(Q(id=ref) | Q(extension_id=ref))
    elif "\x00" in extension_ref:
        raise NotFound("Extension not found")
    else:
        slug = Concat("extension__publisher", Value("."), "extension__name")
        installs = installs.annotate(slug=slug).filter(slug=extension_ref)
    found = list(installs[:2])
    if not found:
        raise NotFound("Extension not found")
    exact = [install for install in found if install.id == ref]
    if len(found) > 1 and not exact:
        raise Conflict("Several of your tenants have this extension, name the install by its install id")
    return (exact or found)[0]


def find_extension(name: str) -> Extension:
    """The extension that ``name`` means: a registry id, or a slug ``publisher.name``. Raises NotFound."""
    extensions = Extension.objects.annotate(full_name=Concat("publisher", Value("."), "name")).order_by("id")
    if (ref := parse_uuid(name)) is not None:
        extension = extensions.filter(id=ref).first()
    else:
        extension = extensions.filter(full_name=name).first() if "\x00" not in name else None
    if extension is None:
        raise NotFound("Extension not found, name it by its registry id or publisher.name")
    return extension


def words_of_extension(search: str) -> list[str]:
    """What to look for in publisher and name, which are shown as ``publisher.name``."""
    return search.replace(".", " ").split()


def fits_extension(search: str, *, at: str = "") -> Q:
    """Whether each of those words is a part of publisher or name; ``at`` leads to the extension."""
    fits = Q()
    for word in words_of_extension(search):
        fits &= Q(**{f"{at}publisher__icontains": word}) | Q(**{f"{at}name__icontains": word})
    return fits


def parse_uuid(text: str) -> UUID | None:
    """The UUID that a text spells, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None


def schedules_of(*, tenant_id: UUID, install_id: UUID) -> QuerySet[Schedule]:
    """The schedules of one install, oldest first."""
    return Schedule.objects.filter(tenant_id=tenant_id, install_id=install_id).order_by("created_at", "id")


def filter_schedules(
    rows: QuerySet[Schedule],
    *,
    enabled: bool | None = None,
    last_run_status: str | None = None,
    endpoint: str | None = None,
    search: str | None = None,
) -> QuerySet[Schedule]:
    """The rows that fit; ``endpoint`` is "METHOD /path" or a path, ``search`` a part of the name or of the path.

    Raises InvalidFields for an endpoint that can be none.
    """
    if enabled is not None:
        rows = rows.filter(enabled=enabled)
    if last_run_status is not None:
        rows = rows.filter(last_run_status=last_run_status)
    if endpoint is not None:
        try:
            wanted = parse_endpoint_selector(endpoint)
        except ValueError as error:
            raise InvalidFields.from_fields({"endpoint": str(error)}) from error
        rows = rows.filter(endpoint_path=wanted.path)
        if wanted.method is not None:
            rows = rows.filter(endpoint_method=wanted.method)
    if search is not None:
        rows = rows.filter(Q(name__icontains=search) | Q(endpoint_path__icontains=search))
    return rows


def filter_runs(
    rows: QuerySet[ScheduleRun],
    *,
    status: Collection[str] | None = None,
    trigger: str | None = None,
    slot_from: datetime | None = None,
    slot_until: datetime | None = None,
) -> QuerySet[ScheduleRun]:
    """The runs that fit: in any of the states, and with ``slot_from <= slot < slot_until``."""
    if status:
        rows = rows.filter(status__in=status)
    if trigger is not None:
        rows = rows.filter(trigger=trigger)
    if slot_from is not None:
        rows = rows.filter(slot__gte=slot_from)
    if slot_until is not None:
        rows = rows.filter(slot__lt=slot_until)
    return rows


def find_schedule(*, tenant_id: UUID, install_id: UUID, schedule_id: UUID) -> Schedule:
    """One schedule of one install; raises NotFound, also where it belongs to another."""
    schedule = schedules_of(tenant_id=tenant_id, install_id=install_id).filter(id=schedule_id).first()
    if schedule is None:
        raise NotFound("Schedule not found")
    return schedule


def runs_of(*, tenant_id: UUID, install_id: UUID) -> QuerySet[ScheduleRun]:
    """The runs of one install, newest slot first."""
    return ScheduleRun.objects.filter(tenant_id=tenant_id, install_id=install_id).order_by("-slot", "-id")


def find_run(*, tenant_id: UUID, install_id: UUID, run_id: UUID) -> ScheduleRun:
    """One run of one install by its invocation id; raises NotFound."""
    run = runs_of(tenant_id=tenant_id, install_id=install_id).filter(id=run_id).first()
    if run is None:
        raise NotFound("Run not found")
    return run


def endpoints_of(*, version_id: UUID) -> list[ApiEndpoint]:
    """The endpoints that a version declares, by path and method."""
    declared = ApiEndpoint.objects.filter(version_id=version_id).order_by("path", "method")
    found = list(declared)
    if not found and endpoints.materialise_if_unread(version_id):
        found = list(declared.all())
    return found


def find_endpoint(*, version_id: UUID, selector: str) -> ApiEndpoint:
    """The endpoint that ``selector`` names in a version, schedulable or not.

    Raises InvalidFields where there is none, and where a path alone matches more than one method.
    """
    try:
        wanted = parse_endpoint_selector(selector)
    except ValueError as error:
        raise InvalidFields.from_fields({"endpoint": f"{ENDPOINT_REFUSED}: {error}"}) from error
    matches = list(ApiEndpoint.objects.filter(version_id=version_id, path=wanted.path))
    if not matches and endpoints.materialise_if_unread(version_id):
        matches = list(ApiEndpoint.objects.filter(version_id=version_id, path=wanted.path))
    if wanted.method is not None:
        matches = [endpoint for endpoint in matches if endpoint.method == wanted.method]
    else:
        # A path alone can mean a GET or a POST, and must not mean both.
        matches = [endpoint for endpoint in matches if endpoint.method in manifests.SCHEDULABLE_METHODS] or matches
    if not matches:
        raise InvalidFields.from_fields(
            {"endpoint": f"{ENDPOINT_REFUSED}: this version has no {selector.strip()[:200]}"}
        )
    if len(matches) > 1:
        choices = " or ".join(f'"{endpoint}"' for endpoint in matches)
        raise InvalidFields.from_fields({"endpoint": f"{ENDPOINT_REFUSED}: the path is ambiguous, write {choices}"})
    return matches[0]


def longest_recent_run_seconds(*, tenant_id: UUID, schedule_id: UUID) -> float | None:
    """The longest of a schedule's last hundred runs in seconds, or None where none has ended."""
    recent = ScheduleRun.objects.filter(tenant_id=tenant_id, schedule_id=schedule_id).order_by("-slot", "-id")
    durations = [run.duration_ms for run in recent.only("started_at", "finished_at")[:100]]
    longest = max((duration for duration in durations if duration is not None), default=None)
    return None if longest is None else longest / 1000


def match_endpoint(*, version_id: UUID, selector: str) -> tuple[ApiEndpoint, str]:
    """The endpoint that answers a concrete ``"METHOD /path"``, path parameters filled in, and that path.

    Raises InvalidFields as `find_endpoint` does.
    """
    try:
        wanted = parse_endpoint_selector(selector)
    except ValueError as error:
        raise InvalidFields.from_fields({"endpoint": f"{ENDPOINT_REFUSED}: {error}"}) from error
    for endpoint in ApiEndpoint.objects.filter(version_id=version_id, method=wanted.method or "").order_by("path"):
        if manifests.path_matches(endpoint.path, wanted.path):
            return endpoint, wanted.path
    return find_endpoint(version_id=version_id, selector=selector), wanted.path


# (expression, zone) -> the moment that was asked about, and the answer.
_next_slots: dict[tuple[str, str], tuple[datetime, datetime | None]] = {}
MAX_REMEMBERED_SLOTS: Final = 10_000


def next_slot_of(schedule: Schedule, *, after: datetime, install_enabled: bool) -> datetime | None:
    """When the schedule is due next, or None while it or its install is disabled."""
    if not (schedule.enabled and install_enabled):
        return None
    # What is next after one moment is next after every later one until it comes, so a list asks anew only then.
    known = _next_slots.get((schedule.cron, schedule.timezone))
    if known is not None and known[0] <= after and (known[1] is None or after < known[1]):
        return known[1]
    slot = cron.next_slot(cron.parse(schedule.cron), cron.parse_zone(schedule.timezone), after=after)
    if len(_next_slots) >= MAX_REMEMBERED_SLOTS:
        _next_slots.clear()
    _next_slots[schedule.cron, schedule.timezone] = after, slot
    return slot


def visible_tenants(user: Any) -> Sequence[UUID] | None:
    """The tenants whose objects the user may read; None means all of them (superusers)."""
    if user.is_superuser:
        return None
    return list(user.tenant_memberships.filter(is_active=True).values_list("tenant_id", flat=True))
