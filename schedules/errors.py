"""The one tree of errors that the product raises on purpose.

A class carries three facts: ``code`` (stable, for programs) and ``status`` (the HTTP status), which the APIs render,
and ``retryable`` (whether the same call may succeed later), which convergence goes by. Messages are for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SchedulingError(Exception):
    """Base of all deliberate refusals and outages.

    ``fields`` maps a member of the request (snake_case) to what is wrong with it; ``data`` carries facts that a
    program can act on. Neither ever holds a payload, a secret or another tenant's data.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fields = dict(fields or {})
        self.data = dict(data or {})


class RefusedByRule(SchedulingError):
    """Base of refusals by the rules of scheduling: the caller must change the request or the state first."""

    code = "invalid"
    status = 400


class InvalidFields(RefusedByRule):
    """One or more members of the request break a rule; ``fields`` says which and why."""

    code = "invalid"
    status = 400

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> InvalidFields:
        """The error whose message is its fields' messages, in order."""
        return cls("; ".join(fields.values()), fields=fields)


class NameInUse(RefusedByRule):
    """Another schedule of the same install has this name."""

    code = "name_in_use"
    status = 409


class TooManySchedules(RefusedByRule):
    """The install already has as many schedules as the platform allows."""

    code = "too_many_schedules"
    status = 409


class InstallDisabled(RefusedByRule):
    """The operation needs an enabled install."""

    code = "install_disabled"
    status = 409


class Conflict(RefusedByRule):
    """The state of the object forbids the operation."""

    code = "conflict"
    status = 409


class RemapFailed(RefusedByRule):
    """A version cannot be taken because schedules point at endpoints that it lacks; ``data['missing']`` names them."""

    code = "SCHEDULE_REMAP_FAILED"
    status = 409


class NotFound(RefusedByRule):
    """Nothing with this id is visible to the caller."""

    code = "not_found"
    status = 404


class NotAuthenticated(SchedulingError):
    """The caller did not prove who it is."""

    code = "not_authenticated"
    status = 401


class PermissionDenied(SchedulingError):
    """The caller is known and may not do this."""

    code = "permission_denied"
    status = 403


class StaleRevision(SchedulingError):
    """Somebody changed the object after the caller read it."""

    code = "stale_revision"
    status = 412


class RateLimited(SchedulingError):
    """Too many calls; ``data['retry_after_seconds']`` says when the next one fits."""

    code = "rate_limited"
    status = 429
    retryable = True


class DependencyUnavailable(SchedulingError):
    """PostgreSQL, Temporal or the runner does not answer right now, or has too much to do."""

    code = "dependency_unavailable"
    status = 503
    retryable = True


class DeploymentRefused(DependencyUnavailable):
    """Temporal refuses this whole deployment: its namespace is not there, or its credentials are not accepted."""


class MirrorRefused(SchedulingError):
    """Temporal understood the request and will not have it, e.g. a search attribute that its namespace lacks."""

    code = "mirror_refused"
    status = 409
