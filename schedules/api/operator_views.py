"""What operators and their tools look at."""

from __future__ import annotations

import hmac

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from schedules import metrics  # noqa: F401 - declares what is counted


@require_GET
def metrics_view(request: HttpRequest) -> HttpResponse:
    """The web side's metrics in Prometheus' text format.

    Where ``METRICS_TOKEN`` is set, the scraper has to present it as a bearer token. With ``PROMETHEUS_MULTIPROC_DIR``
    the numbers are those of all processes that share the folder.
    """
    if settings.METRICS_TOKEN:
        presented = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(presented, f"Bearer {settings.METRICS_TOKEN}".encode()):
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    registry: CollectorRegistry = REGISTRY
    if settings.PROMETHEUS_MULTIPROC_DIR:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
