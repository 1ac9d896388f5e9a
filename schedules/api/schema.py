"""How the APIs are described to programs: one OpenAPI 3.1 document, made from the views.

Each operation is declared beside its view by `operation`; what all of them share (errors, security, what the parts of
an address mean) is here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from django.http import HttpResponse
from drf_spectacular.drainage import reset_generator_stats
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from schedules.api import host_shapes, shapes
from schedules.api.fields import StrictSerializer

_View = TypeVar("_View", bound=Callable[..., Any])
_Answer = type[shapes.Shape] | None

SCHEDULES, RUNS, TENANT, OPERATORS = "Schedules", "Runs", "Tenant", "Operators"
HOST, REGISTRY = "Host API", "Registry API"

_IN_PATH: Final = {
    "extension_ref": (
        OpenApiTypes.STR,
        "The extension: its registry id, its slug `publisher.name`, or the id of the install.",
    ),
    "schedule_id": (OpenApiTypes.UUID, "The schedule."),
    "run_id": (OpenApiTypes.UUID, "The run: its invocation id."),
    "channel_id": (OpenApiTypes.UUID, "The notification channel."),
    "key_id": (OpenApiTypes.UUID, "The API key."),
    "switch_id": (OpenApiTypes.UUID, "The kill switch."),
    "install_id": (OpenApiTypes.UUID, "The install on whose behalf the runner calls."),
    "tenant_id": (OpenApiTypes.UUID, "The tenant, as the platform numbers it."),
    "registry_id": (OpenApiTypes.UUID, "The extension, as the platform numbers it."),
    "version": (OpenApiTypes.STR, "The version's name, e.g. `1.4.0`."),
}
_ERRORS: Final = {
    400: ("The request is malformed or breaks a rule; `fields` says where.", "invalid"),
    401: ("Nobody that is known stands behind the request.", "not_authenticated"),
    403: ("The caller may read this and not change it, or the session's CSRF token is missing.", "permission_denied"),
    404: ("There is nothing at this address, or it is another tenant's.", "not_found"),
    409: ("The state of things forbids it: a name or a place is taken, or the install is disabled.", "conflict"),
    412: ("Somebody changed it since it was read. Nothing was changed.", "stale_revision"),
    413: ("The body is larger than anything there is use for.", "too_large"),
    415: ("The body is not announced as `application/json`.", "unsupported_media_type"),
    429: ("Too many calls; `Retry-After` says in how many seconds the next one fits.", "rate_limited"),
    503: ("A dependency is away or busy; the same request may be sent again.", "dependency_unavailable"),
}
_EVERYWHERE: Final = (400, 401, 404, 503)
# The web server's own, before anything of ours sees the request.
_LONG_ADDRESS: Final = {414: OpenApiResponse(description="The address is longer than the web server reads.")}

# What an answer is good for: its operation, the parameter that its id fills, and the operations that take it.
_LINKS: Final = {
    "create_schedule": (
        "schedule_id",
        ["get_schedule", "update_schedule", "delete_schedule", "run_now", "list_schedule_runs", "preview_backfill"],
    ),
    "run_now": ("run_id", ["get_run", "cancel_run", "replay_run"]),
    "replay_run": ("run_id", ["get_run", "cancel_run"]),
    "create_notification_channel": ("channel_id", ["update_notification_channel", "delete_notification_channel"]),
    "engage_kill_switch": ("switch_id", ["release_kill_switch"]),
    "create_api_key": ("key_id", ["revoke_api_key"]),
}

IF_MATCH: Final = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="The revision that the change is based on, as `ETag` gave it.",
    examples=[OpenApiExample("The first revision", value='"1"')],
)
IDEMPOTENCY_KEY: Final = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description=(
        "A text of the caller's choice, at most 255 characters. A repeat with the same text and body gives the same "
        "answer and does nothing, for a day at the least; with another body it is a conflict."
    ),
    examples=[OpenApiExample("A UUID", value="1d0f7a3e-95ad-4f0e-9d1c-0b7e2f3a4c5d")],
)


def operation(
    name: str,
    *,
    tag: str,
    answer: _Answer = None,
    status: int | Sequence[int] = 200,
    request: Any = None,
    parameters: Sequence[Any] = (),
    refuses: Iterable[int] | Mapping[int, _Answer] = (),
    etag: bool = False,
) -> Callable[[_View], _View]:
    """Describe one method of a view of the admin or the registry API.

    ``name`` is the operation id; ``answer`` the shape of what is answered with each ``status``, None for no body, see
    `page_of` for lists; ``refuses`` are the error statuses beside those that every operation has; a mapping names
    the shape of those with a body of their own.
    """
    statuses = [status] if isinstance(status, int) else list(status)
    own = refuses if isinstance(refuses, Mapping) else {}
    expected = {*_EVERYWHERE, *refuses} | ({413, 415} if request is not None else set())
    if tag in {SCHEDULES, RUNS}:
        expected.add(409)  # the address may mean several installs, where the caller works in several tenants
    headers = [OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=statuses, required=True)] if etag else []
    if 429 in expected:
        headers.append(OpenApiParameter("Retry-After", int, OpenApiParameter.HEADER, response=[429], required=True))
    return _described(
        name,
        tag=tag,
        request=request,
        parameters=[*parameters, *headers],
        responses=dict.fromkeys(statuses, _answer(answer))
        | _LONG_ADDRESS
        | {code: _error(code) for code in sorted(expected)}
        | {code: _answer(shape) for code, shape in own.items() if shape is not None},
    )


def host_operation(
    name: str, *, requests: Mapping[str, type[shapes.Shape]], answers: Mapping[int, Sequence[type[shapes.Shape]]]
) -> Callable[[_View], _View]:
    """Describe the host API's one method: its requests by operation, its answers by status, its errors' own body."""
    errors = {
        code: OpenApiResponse(
            host_shapes.HostError,
            description=_ERRORS[code][0],
            examples=[OpenApiExample(_ERRORS[code][1], value={"error": _ERRORS[code][0]})],
        )
        for code in (400, 401, 403, 404, 413, 429, 503)
    }
    retry_after = OpenApiParameter("Retry-After", int, OpenApiParameter.HEADER, response=[429], required=True)
    return _described(
        name,
        tag=HOST,
        request={
            "application/json": PolymorphicProxySerializer("HostRequest", dict(requests), "operation", many=False)
        },
        parameters=[retry_after],
        responses={status: _one_of(f"HostAnswer{status}", shown) for status, shown in answers.items()} | errors,
        examples=[OpenApiExample(word, value=shape.example, request_only=True) for word, shape in requests.items()],
    )


def _one_of(name: str, shown: Sequence[type[shapes.Shape]]) -> OpenApiResponse:
    return OpenApiResponse(
        PolymorphicProxySerializer(name, list(shown), None, many=False),
        description=" Or: ".join((shape.__doc__ or "").splitlines()[0] for shape in shown),
        examples=[OpenApiExample(shape.__name__, value=shape.example) for shape in shown],
    )


def _described(name: str, *, tag: str, **description: Any) -> Callable[[_View], _View]:
    def describe(method: _View) -> _View:
        summary, _, more = (method.__doc__ or "").replace("``", "`").strip().partition("\n")
        described: _View = extend_schema(
            operation_id=name,
            tags=[tag],
            summary=summary.rstrip("."),
            description=" ".join(more.split()) or summary,
            **description,
        )(method)
        return described

    return describe


def _answer(shape: Any) -> OpenApiResponse:
    if shape is None:
        return OpenApiResponse(description="Done; there is nothing to show.")
    description = (shape.__doc__ or "").splitlines()[0]
    return OpenApiResponse(shape, description=description, examples=[OpenApiExample("Example", value=shape.example)])


@functools.cache
def page_of(shape: type[shapes.Shape]) -> type[shapes.Shape]:
    """A page of a list of them."""
    members = {
        "example": {"results": [shape.example], "next": None, "previous": None},
        "__doc__": f"A page of a list. {(shape.__doc__ or '').splitlines()[0]}",
        "results": shape(many=True),
        "next": serializers.URLField(allow_null=True, help_text="The address of the next page."),
        "previous": serializers.URLField(allow_null=True, help_text="The address of the page before."),
    }
    return type(f"PageOf{shape.__name__}", (shapes.Shape,), members)


def _error(status: int) -> OpenApiResponse:
    description, code = _ERRORS[status]
    example: dict[str, Any] = {"code": code, "message": description, "fields": {}, "data": {}}
    if status == 400:
        example = shapes.Error.example
    elif status == 429:
        example |= {"data": {"retry_after_seconds": 12}}
    return OpenApiResponse(shapes.Error, description=description, examples=[OpenApiExample(code, value=example)])


class Described(AutoSchema):
    """Adds to each operation what the parts of its address mean, and the example that its request's class has."""

    def get_override_parameters(self) -> list[Any]:
        """The declared parameters and those of the path."""
        in_path = [
            OpenApiParameter(name, kind, OpenApiParameter.PATH, description=description)
            for name, (kind, description) in _IN_PATH.items()
            if f"{{{name}}}" in self.path
        ]
        return [*in_path, *super().get_override_parameters()]

    def get_examples(self) -> list[OpenApiExample]:
        """The request's own example."""
        example = getattr(self.get_request_serializer(), "example", None)
        declared = super().get_examples()
        return declared if example is None else [OpenApiExample("Example", value=example, request_only=True)]


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How an API key travels."""

    target_class = "schedules.api.authentication.ApiKeyAuthentication"
    name = "ApiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """As an authorization header of a scheme of its own."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Api-Key` and the key: one tenant, one role.",
        }


def finish(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Postprocess the document: say that requests are closed, and what stands behind the services' addresses."""
    components = result["components"]
    for strict in _all_subclasses(StrictSerializer):
        component = components["schemas"].get(strict.__name__)
        if component is None:
            continue
        component["additionalProperties"] = False
        for name, rules in strict.document.get("properties", {}).items():
            component["properties"][name] |= rules
        component |= {name: rule for name, rule in strict.document.items() if name != "properties"}
    components["securitySchemes"] |= {
        "RunnerToken": {"type": "apiKey", "in": "header", "name": "x-runner-auth"},
        "RegistryToken": {"type": "apiKey", "in": "header", "name": "x-registry-auth"},
        "CsrfToken": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRFToken",
            "description": "What a session's writes need: the value of the cookie `csrftoken`.",
        },
    }
    shared: dict[str, Any] = components.setdefault("responses", {})
    for address, methods in result["paths"].items():
        for method, described in methods.items():
            _link(described)
            _share_errors(described["responses"], shared, prefix="Host" if "HostError" in str(described) else "")
            if address.startswith("/api/internal/registry/"):
                described["security"] = [{"RegistryToken": []}]
            elif address.startswith("/api/internal/"):
                described["security"] = [{"RunnerToken": []}]
            elif address.startswith("/api/kill-switches"):
                described["security"] = [{"cookieAuth": []} if method == "get" else {"cookieAuth": [], "CsrfToken": []}]
            elif method != "get":
                described["security"] = [{"ApiKey": []}, {"cookieAuth": [], "CsrfToken": []}]
    return result


def _link(described: dict[str, Any]) -> None:
    """Say which operations an answer's id leads to (OpenAPI 3.1, section 4.8.20)."""
    parameter, targets = _LINKS.get(described["operationId"], ("", []))
    if not targets:
        return
    filled = {parameter: "$response.body#/id"}
    if parameter in {"schedule_id", "run_id"}:
        filled["extension_ref"] = "$request.path.extension_ref"
    (success,) = [answer for status, answer in described["responses"].items() if status < "300"]
    success["links"] = {target: {"operationId": target, "parameters": filled} for target in targets}


def _share_errors(responses: dict[str, Any], shared: dict[str, Any], *, prefix: str) -> None:
    """Say once what all operations mean by an error's status."""
    # One with a body of its own is nobody else's.
    common = ("schemas/Error", "schemas/HostError", "'description': 'The address is longer")
    for status in [status for status in responses if status >= "400"]:
        if not any(mark in str(responses[status]) for mark in common):
            continue
        name = f"{prefix}Error{status}"
        shared[name] = responses[status]
        responses[status] = {"$ref": f"#/components/responses/{name}"}


def _all_subclasses(parent: type[Any]) -> Iterable[type[Any]]:
    for child in parent.__subclasses__():
        yield child
        yield from _all_subclasses(child)


@functools.cache
def as_object() -> dict[str, Any]:
    """The OpenAPI document. Made once in a process: it depends on nothing but the code."""
    reset_generator_stats()
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return made


def document() -> bytes:
    """The document as it is served and kept in the repository."""
    return json.dumps(as_object(), indent=2, ensure_ascii=False).encode() + b"\n"


_served = functools.cache(document)


class SchemaView(APIView):
    """The OpenAPI document. It holds nothing of anybody's, so everybody may read it."""

    authentication_classes = ()
    permission_classes = ()

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Show it."""
        return HttpResponse(_served(), content_type="application/vnd.oai.openapi+json")
