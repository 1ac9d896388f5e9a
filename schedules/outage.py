"""What the browser's pages answer while PostgreSQL is away; for the APIs `schedules.api.errors` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 10


class OutageMiddleware:
    """Turns an outage of the database into a page that needs none."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for the database where it does not; None leaves a bug to become a logged 500."""
        is_outage = isinstance(error, OperationalError | InterfaceError)
        if not is_outage or not request.path.startswith(reverse("admin:index")):
            return None
        log.warning("admin.database_unavailable", error=type(error).__name__)
        # Without the request: its user and its messages would be asked for in the database.
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
