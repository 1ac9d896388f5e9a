"""What operators and their tools look at."""

from __future__ import annotations

import hmac

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET, require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from schedules import (
    kill_switches,
    metrics,  # noqa: F401 - declares what is counted
    outage,
    status,
)
from schedules.api import answers, errors


@require_GET
def metrics_view(request: HttpRequest) -> HttpResponse:
    """The web side's metrics in Prometheus' text format.

    Where ``METRICS_TOKEN`` is set, the scraper has to present it as a bearer token. With ``PROMETHEUS_MULTIPROC_DIR``
    the numbers are those of all processes that share the folder.
    """
    if settings.METRICS_TOKEN and not _presents_token(request):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    registry: CollectorRegistry = REGISTRY
    if settings.PROMETHEUS_MULTIPROC_DIR:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry) + _sync_metrics(), content_type=CONTENT_TYPE_LATEST)


def _sync_metrics() -> bytes:
    """What is counted in the database at the moment of asking; empty where that does not answer."""
    try:
        found = status.read_sync_status()
    except DatabaseError:
        return b""
    registry = CollectorRegistry()
    ended = Gauge("schedule_pass_timestamp_seconds", "When a regular pass last ended.", ["name"], registry=registry)
    for name, each in status.read_passes(ask_temporal=False).items():
        ended.labels(name=name).set(each.finished_at.timestamp() if each.finished_at else 0)
    pending = Gauge("schedule_sync_pending", "Mirrors that are not yet what their rows want.", registry=registry)
    oldest = Gauge("schedule_sync_oldest_seconds", "Age of the oldest of these changes.", registry=registry)
    failed = Gauge("schedule_sync_failed", "Those of them that Temporal refuses.", registry=registry)
    held = Gauge("schedule_holds", "Schedules that operators hold in Temporal.", registry=registry)
    compared = Gauge("schedule_comparison_timestamp_seconds", "When the last full comparison ended.", registry=registry)
    refused = Gauge("schedule_comparison_refused", "Whether it refused a mass of differences.", registry=registry)
    pending.set(found.pending + found.failed + found.removals)
    oldest.set(found.oldest_seconds)
    failed.set(found.failed)
    held.set(found.held)
    if found.comparison is not None:
        compared.set(found.comparison.finished_at.timestamp())
        refused.set(bool(found.comparison.refused))
    return generate_latest(registry)


@require_safe
def health_view(request: HttpRequest) -> HttpResponse:
    """Whether this process answers at all. Asks nobody else."""
    return JsonResponse({"status": "ok"})


@require_safe
def readiness_view(request: HttpRequest) -> HttpResponse:
    """Whether requests can be answered: 200, or 503 with what is missing. Temporal away is a warning."""
    found = status.check_readiness()
    body = {"status": "ok" if found.is_ready else "unavailable", "checks": dict(found.checks)}
    return JsonResponse(body, status=200 if found.is_ready else 503)


@require_safe
def status_view(request: HttpRequest) -> HttpResponse:
    """The state of sync, for operators: superusers, and whoever presents ``METRICS_TOKEN`` as a bearer token."""
    user = request.user
    if not (user.is_active and user.is_superuser) and not (settings.METRICS_TOKEN and _presents_token(request)):
        known = user.is_authenticated
        code, message = ("permission_denied", "This is for operators") if known else ("not_authenticated", "Sign in")
        return JsonResponse(errors.error_body(code, message), status=403 if known else 401)
    try:
        found = status.read_sync_status()
    except DatabaseError as error:
        body = errors.error_body("dependency_unavailable", f"{outage.describe(error)}, try again soon")
        return JsonResponse(body, status=503)
    checks = status.check_readiness().checks
    passes = status.read_passes(ask_temporal=checks["temporal"] == "ok")
    last = found.comparison
    comparison = None
    if last is not None:
        comparison = {
            "finished_at": answers.rfc3339(last.finished_at),
            "compared": last.compared,
            "drift": last.drift,
            "refused": last.refused or None,
        }
    return JsonResponse(
        {
            "schedules": found.schedules,
            "sync": {
                "pending": found.pending,
                "renewals": found.renewals,
                "failed": found.failed,
                "removals": found.removals,
                "oldest_seconds": round(found.oldest_seconds, 1),
                "held": found.held,
            },
            "comparison": comparison,
            "checks": dict(checks),
            "passes": {
                name: {"schedule": each.schedule, "finished_at": answers.rfc3339(each.finished_at)}
                for name, each in passes.items()
            },
            "kill_switches": [answers.render_kill_switch(switch) for switch in kill_switches.standing()],
        }
    )


def _presents_token(request: HttpRequest) -> bool:
    presented = request.headers.get("Authorization", "").encode()
    return hmac.compare_digest(presented, f"Bearer {settings.METRICS_TOKEN}".encode())
