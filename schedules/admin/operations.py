"""The operators' pages: how rows and mirrors stand to each other, the platform's limits, the load of the coming day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib.admin import AdminSite
from django.db.models import Count, F, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from schedules import kill_switches, load, status
from schedules.admin import display
from schedules.admin.base import require_operator
from schedules.models import ExtensionInstall, KillScope, Schedule

SHOWN: Final = 25
_LEVELS: Final = 5
_STOPPABLE: Final = (KillScope.TENANT, KillScope.EXTENSION, KillScope.VERSION, KillScope.PLATFORM)
_ARTICLES: Final = {KillScope.TENANT: "a ", KillScope.EXTENSION: "an ", KillScope.VERSION: "a "}


def operations_view(site: AdminSite, request: HttpRequest) -> TemplateResponse:
    """Sync state, drift and limits."""
    require_operator(request)
    now = datetime.now(UTC)
    sync = status.read_sync_status()
    unsynced = _listed(Schedule.objects.exclude(synced_generation=F("generation"))).order_by("changed_at")
    context = {
        **site.each_context(request),
        "title": "Sync and limits",
        "sync": sync,
        "oldest": display.duration_words(sync.oldest_seconds) if sync.oldest_seconds else "",
        "drift": sorted(sync.comparison.drift.items()) if sync.comparison else [],
        "unsynced": unsynced[:SHOWN],
        "held": _listed(Schedule.objects.filter(held_since__isnull=False)).order_by("held_since")[:SHOWN],
        "switches": kill_switches.standing(),
        "scopes": [(scope, f"Stop {_ARTICLES.get(scope, '')}{scope.label}…") for scope in _STOPPABLE],
        "limits": _limits(),
        "fullest": _fullest_installs(),
        "now": now,
    }
    return TemplateResponse(request, "admin/operations.html", context)


def _listed(rows: QuerySet[Schedule]) -> QuerySet[Schedule]:
    related = rows.select_related("tenant", "install__extension")
    return related.defer("payload", "install__config", "install__secret_envelope")


def _limits() -> list[tuple[str, str, str]]:
    """The platform's limits: what each is about, its value, and the variable that sets it."""
    return [
        ("Schedules per install", str(settings.SCHEDULER_MAX_PER_INSTALL), "SCHEDULER_MAX_PER_INSTALL"),
        (
            "Shortest gap between two slots",
            display.duration_words(settings.SCHEDULER_MIN_INTERVAL_SECONDS),
            "SCHEDULER_MIN_INTERVAL_SECONDS",
        ),
        ("Largest payload", f"{settings.SCHEDULER_MAX_PAYLOAD_BYTES:,} bytes", "SCHEDULER_MAX_PAYLOAD_BYTES"),
        (
            "Runs by hand per tenant and minute",
            str(settings.SCHEDULER_RUN_NOW_PER_MINUTE),
            "SCHEDULER_RUN_NOW_PER_MINUTE",
        ),
        (
            "Writes by an extension per minute",
            str(settings.SCHEDULER_HOST_API_WRITES_PER_MINUTE),
            "SCHEDULER_HOST_API_WRITES_PER_MINUTE",
        ),
        ("Time limit of one attempt", display.milliseconds(settings.EXT_GATEWAY_TIMEOUT_MS), "EXT_GATEWAY_TIMEOUT_MS"),
        (
            "Largest answer that is read",
            f"{settings.EXT_RUNNER_MAX_RESPONSE_BYTES:,} bytes",
            "EXT_RUNNER_MAX_RESPONSE_BYTES",
        ),
        ("Runs at a time per worker", str(settings.WORKER_MAX_CONCURRENT_RUNS), "WORKER_MAX_CONCURRENT_RUNS"),
    ]


def _fullest_installs() -> list[tuple[ExtensionInstall, int]]:
    """The installs with the most schedules: who will meet the limit first."""
    counts = dict(Schedule.objects.values_list("install_id").annotate(count=Count("id")).order_by("-count")[:5])
    rows = ExtensionInstall.objects.filter(id__in=counts).select_related("tenant", "extension")
    installs = list(rows.defer("config", "secret_envelope"))
    return sorted(((install, counts[install.id]) for install in installs), key=lambda pair: -pair[1])


@dataclass(frozen=True, slots=True)
class Cell:
    """A minute of the heatmap; ``level`` is 0 for none and 5 for the most."""

    x: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """An hour of the heatmap."""

    y: int
    label: str
    moment: str
    total: int
    cells: list[Cell]


def load_view(site: AdminSite, request: HttpRequest) -> TemplateResponse:
    """The slots of each minute of the next 24 hours, and who is in the heaviest ones."""
    require_operator(request)
    found = load.read_load(now=datetime.now(UTC))
    context: dict[str, Any] = {
        **site.each_context(request),
        "title": "Load of the next 24 hours",
        "load": found,
        "rows": _heat_rows(found),
        "highest": max(found.counts),
        "ticks": [(46 + minute * 11, f":{minute:02}") for minute in range(0, 60, 10)],
    }
    return TemplateResponse(request, "admin/load.html", context)


def _heat_rows(found: load.Load) -> list[HeatRow]:
    highest = max(found.counts)
    rows = []
    for hour in range(load.HOURS):
        start = found.start + timedelta(hours=hour)
        counts = found.counts[hour * 60 : hour * 60 + 60]
        cells = [
            Cell(46 + minute * 11, -(-count * _LEVELS // highest), f"{count} at {start:%H}:{minute:02} UTC")
            for minute, count in enumerate(counts)
            if count
        ]
        rows.append(HeatRow(hour * 14, f"{start:%H:%M}", start.isoformat(), sum(counts), cells))
    return rows
