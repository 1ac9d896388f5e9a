"""What is said where PostgreSQL could not do its part: to browsers here, to programs by `schedules.api.errors`."""

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
# It is there and did not come to an end with this: serialization_failure, deadlock_detected, lock_not_available, and
# query_canceled, which is its time limit (PostgreSQL's documentation, appendix A, "PostgreSQL Error Codes").
_BUSY: Final = frozenset({"40001", "40P01", "55P03", "57014"})


def sqlstate_of(error: Exception) -> str | None:
    """PostgreSQL's own word for what happened; None where it could not say any."""
    return getattr(error.__cause__, "sqlstate", None)


def describe(error: Exception) -> str:
    """What one may tell a client of an error that is the database's."""
    if sqlstate_of(error) in _BUSY:
        return "The database is busy"
    return "The database does not answer"


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
        log.warning("admin.database_unavailable", error=type(error).__name__, sqlstate=sqlstate_of(error))
        # Without the request: its user and its messages would be asked for in the database.
        page = render_to_string("503.html", {"message": describe(error)})
        return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
