"""Names and identities that the web side, the worker and operators share. Released names never change.

Ids are functions of what they stand for, so that whoever computes one, however often, gets the same.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Final

from temporalio.common import SearchAttributeKey

from workflows.payloads import RunRequest

RUN_SCHEDULE: Final = "RunSchedule"
CONVERGE: Final = "ConvergeMirrors"
COMPARE: Final = "CompareMirrors"
PURGE: Final = "PurgeRuns"

MIRROR_PREFIX: Final = "extsched:"

TENANT_ID: Final = SearchAttributeKey.for_keyword("TenantId")
INSTALL_ID: Final = SearchAttributeKey.for_keyword("InstallId")
EXTENSION_ID: Final = SearchAttributeKey.for_keyword("ExtensionId")
SCHEDULE_ID: Final = SearchAttributeKey.for_keyword("ScheduleId")
RUN_TRIGGER: Final = SearchAttributeKey.for_keyword("RunTrigger")
# Which deployment's mirror it is: a namespace may hold those of several, and only its own are a deployment's business.
DEPLOYMENT: Final = SearchAttributeKey.for_keyword("ScheduleDeployment")
GENERATION: Final = SearchAttributeKey.for_keyword("ScheduleGeneration")
# What operators find a run's workflow by, and its mirror.
RUN_ATTRIBUTES: Final = (TENANT_ID, INSTALL_ID, EXTENSION_ID, SCHEDULE_ID, RUN_TRIGGER)
SEARCH_ATTRIBUTES: Final = (*RUN_ATTRIBUTES, GENERATION, DEPLOYMENT)

# The engine records a fire's nominal time here; it is not part of the workflow's input
# (https://docs.temporal.io/schedule).
SCHEDULED_START_TIME: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")

_INVOCATION_NAMESPACE: Final = uuid.UUID("5f6f0a3e-6d0c-5c43-9c54-0d8b8f3a7f11")


def convergence_schedule_id(*, task_queue: str) -> str:
    """The id of the system schedule that repairs mirrors; one for each task queue, whose workers serve it."""
    return f"extsched-system:converge:{task_queue}"


def comparison_schedule_id(*, task_queue: str) -> str:
    """The id of the system schedule that compares all rows with all mirrors."""
    return f"extsched-system:compare:{task_queue}"


def retention_schedule_id(*, task_queue: str) -> str:
    """The id of the system schedule that deletes runs whose time is over."""
    return f"extsched-system:retention:{task_queue}"


def mirror_id(*, install_id: uuid.UUID | str, schedule_id: uuid.UUID | str) -> str:
    """The id of the Temporal Schedule that stands for a schedule; its workflows' ids begin with it."""
    return f"{MIRROR_PREFIX}{install_id}:{schedule_id}"


def parse_mirror_id(text: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """The install's and the schedule's id that a mirror's id is made of; None for one that is not spelt as ours are."""
    try:
        install_id, schedule_id = (uuid.UUID(part) for part in text.removeprefix(MIRROR_PREFIX).split(":"))
    except ValueError:
        return None
    return (install_id, schedule_id) if text == mirror_id(install_id=install_id, schedule_id=schedule_id) else None


def started_workflow_id(request: RunRequest, *, waits: int = 0) -> str:
    """The workflow id of a run that no fire of the engine has started: one by hand, or a slot that is made up for.

    A run whose workflow ended because it had to wait gets another one, told apart by how often that has happened.
    """
    mirror = mirror_id(install_id=request.install_id, schedule_id=request.schedule_id)
    kind = "slot" if request.trigger == "schedule" else "manual"
    return f"{mirror}:{kind}:{request.invocation_id}" + (f":{waits}" if waits else "")


def slot_invocation_id(*, schedule_id: uuid.UUID | str, slot: datetime) -> uuid.UUID:
    """The invocation id of a scheduled slot. A name-based UUID (RFC 9562, section 5.5)."""
    second = slot.astimezone(UTC).replace(microsecond=0)
    return uuid.uuid5(_INVOCATION_NAMESPACE, f"slot/{schedule_id}/{second:%Y-%m-%dT%H:%M:%SZ}")


def backfill_invocation_id(*, schedule_id: uuid.UUID | str, request_key: str, slot: datetime) -> uuid.UUID:
    """The invocation id of one slot of a backfill, given the request's idempotency key."""
    second = slot.astimezone(UTC).replace(microsecond=0)
    return uuid.uuid5(_INVOCATION_NAMESPACE, f"backfill/{schedule_id}/{request_key}/{second:%Y-%m-%dT%H:%M:%SZ}")


def request_invocation_id(*, schedule_id: uuid.UUID | str, request_key: str) -> uuid.UUID:
    """The invocation id of a run-now request, given the caller's idempotency key."""
    return uuid.uuid5(_INVOCATION_NAMESPACE, f"request/{schedule_id}/{request_key}")
