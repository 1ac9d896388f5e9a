"""The words that rows choose from, and what follows from them."""

from __future__ import annotations

from django.db import models

MAX_NAME_LENGTH = 128
MAX_PATH_LENGTH = 1024
MAX_TARGET_LENGTH = 1024


class HttpMethod(models.TextChoices):
    """The HTTP methods a manifest may name (RFC 9110, section 9)."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    HEAD = "HEAD"
    OPTIONS = "OPTIONS"


class Role(models.TextChoices):
    """What a member or an API key may do within its tenant."""

    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"

    @property
    def permissions(self) -> frozenset[str]:
        """The tenant permissions that the role carries."""
        read = frozenset({"extension:read"})
        return read | {"extension:write"} if self is Role.ADMINISTRATOR else read


class RunStatus(models.TextChoices):
    """The states of a run; every one but the first two is terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_DISABLED = "skipped_disabled"
    MISSED = "missed"
    SUPERSEDED = "superseded"


UNFINISHED_STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING)


class Trigger(models.TextChoices):
    """Why a run exists."""

    SCHEDULE = "schedule"
    RUN_NOW = "run_now"
    BACKFILL = "backfill"
    REPLAY = "replay"


class OverlapPolicy(models.TextChoices):
    """What becomes of a run that is due while another one of its schedule is in flight."""

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_RUNNING = "cancel_running"
    ALLOW = "allow"


class CatchUpPolicy(models.TextChoices):
    """What becomes of slots that an outage swallowed."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class SyncState(models.TextChoices):
    """How a schedule's mirror stands to its row."""

    SYNCED = "synced"
    PENDING = "pending"
    FAILED = "failed"


class NotificationKind(models.TextChoices):
    """How a message leaves."""

    EMAIL = "email", "E-mail"
    WEBHOOK = "webhook", "Webhook"


class NotificationEvent(models.TextChoices):
    """What a tenant can be told of."""

    FAILURE = "failure"
    RECOVERY = "recovery"
    AUTO_PAUSE = "auto_pause"
    MISSED = "missed"


class KillScope(models.TextChoices):
    """What a kill switch stops."""

    PLATFORM = "platform", "the whole platform"
    TENANT = "tenant", "tenant"
    EXTENSION = "extension", "extension"
    VERSION = "version", "version"
