"""One error body for every API: ``{code, message, fields, data}``. No stack and no foreign data ever leaves here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from django.core.exceptions import RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from schedules import outage
from schedules.errors import DependencyUnavailable, RateLimited, SchedulingError

log = structlog.get_logger(__name__)

# The one API whose errors have a body of their own.
_HOST_API: Final = "/api/internal/ext-scheduler/"
_CODES: Final = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
    429: "rate_limited",
}


def handle_exception(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Render what the product raises on purpose; None leaves a bug to become a logged 500."""
    if isinstance(error, OperationalError | InterfaceError):
        log.warning("api.database_unavailable", error=type(error).__name__, sqlstate=outage.sqlstate_of(error))
        error = DependencyUnavailable(f"{outage.describe(error)}, try again soon")
    error = _as_known_error(error)
    if isinstance(error, SchedulingError):
        set_rollback()
        return Response(body_of(error), status=error.status, headers=headers_of(error))
    if isinstance(error, exceptions.APIException):
        set_rollback()
        headers = {}
        if (auth_header := getattr(error, "auth_header", None)) is not None:
            headers["WWW-Authenticate"] = auth_header
        return Response(_body_of_framework_error(error), status=error.status_code, headers=headers)
    return None


def _as_known_error(error: Exception) -> Exception:
    """Errors of Django that stand for one of ours or the framework's."""
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, RequestDataTooBig):
        return TooLarge("The body is too large")
    if isinstance(error, DjangoValidationError):  # e.g. a cursor that somebody made up
        return exceptions.ParseError("A parameter of the address is malformed")
    return error


class TooLarge(SchedulingError):
    """The request's body is larger than anything that an endpoint has use for."""

    code = "too_large"
    status = 413


def body_of(error: SchedulingError) -> dict[str, Any]:
    """The error body of a deliberate error."""
    return error_body(error.code, error.message, fields=error.fields, data=error.data)


def headers_of(error: SchedulingError) -> dict[str, str]:
    """The headers that go with a deliberate error."""
    if isinstance(error, RateLimited):
        return {"Retry-After": str(error.data["retry_after_seconds"])}
    return {}


def error_body(
    code: str,
    message: str,
    *,
    fields: Mapping[str, str] | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The one shape of an error."""
    return {
        "code": code,
        "message": message,
        "fields": dict(fields or {}),
        "data": dict(data or {}),
    }


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django refuses before any view, e.g. a host that is not ours."""
    if request.path.startswith("/api/"):
        return JsonResponse(error_body("invalid", "The request is malformed or addressed to another host"), status=400)
    return defaults.bad_request(request, exception)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django forbids before any view."""
    if request.path.startswith("/api/"):
        return JsonResponse(error_body("permission_denied", "This is not allowed"), status=403)
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that nothing is at: in JSON below /api/, as a page elsewhere."""
    if request.path.startswith(_HOST_API):
        return JsonResponse({"error": "There is nothing at this address"}, status=404)
    if request.path.startswith("/api/"):
        return JsonResponse(error_body("not_found", "There is nothing at this address"), status=404)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer for a bug: the stack is in the log, and only there."""
    if request.path.startswith(_HOST_API):
        return JsonResponse({"error": "Something went wrong on our side"}, status=500)
    if request.path.startswith("/api/"):
        return JsonResponse(error_body("internal_error", "Something went wrong on our side"), status=500)
    return defaults.server_error(request)


def _body_of_framework_error(error: exceptions.APIException) -> dict[str, Any]:
    code = _CODES.get(error.status_code, "error")
    if isinstance(error, exceptions.ValidationError):
        fields = _flatten(error.detail)
        return error_body(
            code,
            "; ".join(f"{name}: {text}" for name, text in fields.items()),
            fields=fields,
        )
    return error_body(code, str(error.detail))


def _flatten(detail: Any, prefix: str = "") -> dict[str, str]:
    """The framework's nested lists and maps of messages as one map of member to message."""
    if isinstance(detail, dict):
        flat: dict[str, str] = {}
        for name, value in detail.items():
            flat |= _flatten(value, f"{prefix}.{name}" if prefix else str(name))
        return flat
    messages = detail if isinstance(detail, list) else [detail]
    return {prefix or "body": " ".join(str(message) for message in messages)}
