"""Tables, choices and constraints. A model knows its own row and nothing beyond it.

Every tenant-owned table carries the tenant, and the constraints and indexes that serve a tenant's queries begin with
it, so that the database can be distributed by tenant (docs/adr/0007 names the exceptions). The database never cascades:
services delete, in order, and a forgotten reference is an error instead of a loss.
"""

from __future__ import annotations

from schedules.models.choices import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    MAX_TARGET_LENGTH,
    UNFINISHED_STATUSES,
    CatchUpPolicy,
    HttpMethod,
    KillScope,
    NotificationEvent,
    NotificationKind,
    OverlapPolicy,
    Role,
    RunStatus,
    SyncState,
    Trigger,
)
from schedules.models.kill_switches import EVERYTHING, MAX_KILL_REASON_LENGTH, KillSwitch
from schedules.models.notifications import Notification, NotificationChannel
from schedules.models.registry import (
    ApiEndpoint,
    ApiKey,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    Tenant,
    TenantMembership,
)
from schedules.models.runs import RunCount, RunCountProgress, ScheduleRun
from schedules.models.schedules import MirrorRemoval, Schedule
from schedules.models.trail import (
    AuditEvent,
    ComparisonRecord,
    Deployment,
    IdempotencyRecord,
    OrphanSighting,
    PassRecord,
    RateWindowEntry,
)

__all__ = [
    "EVERYTHING",
    "MAX_KILL_REASON_LENGTH",
    "MAX_NAME_LENGTH",
    "MAX_PATH_LENGTH",
    "MAX_TARGET_LENGTH",
    "UNFINISHED_STATUSES",
    "ApiEndpoint",
    "ApiKey",
    "AuditEvent",
    "CatchUpPolicy",
    "ComparisonRecord",
    "Deployment",
    "Extension",
    "ExtensionInstall",
    "ExtensionVersion",
    "HttpMethod",
    "IdempotencyRecord",
    "KillScope",
    "KillSwitch",
    "MirrorRemoval",
    "Notification",
    "NotificationChannel",
    "NotificationEvent",
    "NotificationKind",
    "OrphanSighting",
    "OverlapPolicy",
    "PassRecord",
    "RateWindowEntry",
    "Role",
    "RunCount",
    "RunCountProgress",
    "RunStatus",
    "Schedule",
    "ScheduleRun",
    "SyncState",
    "Tenant",
    "TenantMembership",
    "Trigger",
]
