"""Tables, choices and constraints. A model knows its own row and nothing beyond it.

Every tenant-owned table carries the tenant, and the constraints and indexes that serve a tenant's queries begin with
it, so that the database can be distributed by tenant (docs/adr/0007 names the exceptions). The database never cascades:
services delete, in order, and a forgotten reference is an error instead of a loss.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

MAX_NAME_LENGTH = 128
MAX_PATH_LENGTH = 1024


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


class SyncState(models.TextChoices):
    """How a schedule's mirror stands to its row."""

    SYNCED = "synced"
    PENDING = "pending"
    FAILED = "failed"


class Tenant(models.Model):
    """A customer of the platform. The id comes from the platform."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    timezone = models.CharField(max_length=64, default="UTC", help_text="The zone of schedules that name none.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("name", "id")

    def __str__(self) -> str:
        return self.name


class TenantMembership(models.Model):
    """Lets a user work in a tenant, with one role."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="tenant_memberships",
    )
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("tenant", "user"), name="a_user_joins_a_tenant_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant} ({self.role})"


class ApiKey(models.Model):
    """A secret that stands for one tenant and one role. Only a digest of it is stored."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="api_keys")
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)
    prefix = models.CharField(
        max_length=16,
        editable=False,
        help_text="The first characters, to tell keys apart.",
    )
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        ordering = ("tenant", "-created_at")
        constraints = [
            models.UniqueConstraint(fields=("tenant", "digest"), name="an_api_key_is_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Extension(models.Model):
    """A registry entry: what a third party publishes. The id is the platform's registry id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    publisher = models.CharField(max_length=MAX_NAME_LENGTH)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("publisher", "name")
        constraints = [
            models.UniqueConstraint(fields=("publisher", "name"), name="a_publisher_names_an_extension_once"),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def slug(self) -> str:
        """``publisher.name``, the readable id of the admin API."""
        return f"{self.publisher}.{self.name}"


class ExtensionVersion(models.Model):
    """One published version. Its content never changes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    extension = models.ForeignKey(Extension, on_delete=models.PROTECT, db_index=False, related_name="versions")
    version = models.CharField(max_length=64)
    content_hash = models.CharField(max_length=128)
    manifest = models.JSONField()
    capabilities = models.JSONField(default=list)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "version"
        verbose_name_plural = "versions"
        ordering = ("extension", "-created_at")
        constraints = [
            models.UniqueConstraint(fields=("extension", "version"), name="a_version_is_published_once"),
        ]

    def __str__(self) -> str:
        return f"{self.extension} {self.version}"


class ApiEndpoint(models.Model):
    """A method and path that a version answers."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(
        ExtensionVersion,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="endpoints",
    )
    method = models.CharField(max_length=8, choices=HttpMethod.choices)
    path = models.CharField(max_length=MAX_PATH_LENGTH)
    handler = models.CharField(max_length=MAX_PATH_LENGTH, blank=True)
    schedulable = models.BooleanField()
    unschedulable_reason = models.CharField(max_length=128, blank=True)

    class Meta:
        verbose_name = "endpoint"
        verbose_name_plural = "endpoints"
        ordering = ("path", "method")
        constraints = [
            models.UniqueConstraint(
                fields=("version", "method", "path"),
                name="a_version_declares_an_endpoint_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class ExtensionInstall(models.Model):
    """A tenant's installed extension: which version runs, with which configuration and rights."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="installs")
    extension = models.ForeignKey(Extension, on_delete=models.PROTECT, related_name="installs")
    version = models.ForeignKey(ExtensionVersion, on_delete=models.PROTECT, related_name="installs")
    is_enabled = models.BooleanField(default=True)
    config = models.JSONField(default=dict)
    granted_caps = models.JSONField(default=list)
    secret_envelope = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "install"
        verbose_name_plural = "installs"
        ordering = ("tenant", "extension")
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "extension"),
                name="a_tenant_installs_an_extension_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.extension} of {self.tenant}"


class Schedule(models.Model):
    """When an install's endpoint is called, and with what.

    ``revision`` counts what people changed (it is the ETag), ``generation`` counts changes of the state that the
    mirror must show, and ``synced_generation`` is the one that the mirror is known to show.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="schedules")
    install = models.ForeignKey(
        ExtensionInstall,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="schedules",
    )
    endpoint = models.ForeignKey(ApiEndpoint, on_delete=models.PROTECT, null=True, related_name="schedules")
    endpoint_method = models.CharField(max_length=8, editable=False)
    endpoint_path = models.CharField(max_length=MAX_PATH_LENGTH, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH, null=True, blank=True)
    cron = models.CharField(max_length=128)
    timezone = models.CharField(max_length=64)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=256, blank=True)
    payload = models.JSONField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=1, editable=False)
    generation = models.PositiveIntegerField(default=1, editable=False)
    synced_generation = models.PositiveIntegerField(default=0, editable=False)
    sync_error = models.CharField(max_length=512, blank=True, editable=False)
    exact_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when the mirror's calendars are exact; renewed long before."
    )
    calendar_rules = models.CharField(
        max_length=32, blank=True, editable=False, help_text="What the mirror's calendars were compiled by."
    )
    changed_at = models.DateTimeField(db_default=Now(), editable=False, help_text="When the generation last moved.")
    last_run_at = models.DateTimeField(null=True, editable=False)
    last_run_status = models.CharField(max_length=16, choices=RunStatus.choices, blank=True, editable=False)
    last_error = models.CharField(max_length=1024, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("created_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "install", "name"),
                condition=Q(name__isnull=False),
                name="a_schedule_name_is_unique_per_install",
            ),
            models.CheckConstraint(
                condition=Q(synced_generation__lte=F("generation")),
                name="a_mirror_is_never_ahead_of_its_row",
            ),
        ]
        indexes = [
            models.Index(
                fields=("tenant", "install", "created_at", "id"),
                name="schedules_of_an_install",
            ),
            models.Index(
                fields=("tenant", "changed_at"),
                condition=~Q(synced_generation=F("generation")),
                name="schedules_not_yet_synced",
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.endpoint_method} {self.endpoint_path} at {self.cron}"

    @property
    def sync_state(self) -> SyncState:
        """How the mirror stands to this row, as far as the row knows."""
        if self.synced_generation == self.generation:
            return SyncState.SYNCED
        return SyncState.FAILED if self.sync_error else SyncState.PENDING


class MirrorRemoval(models.Model):
    """A deleted schedule whose mirror is still to be removed. Gone once it is."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="The deleted schedule's id.")
    tenant_id = models.UUIDField(editable=False)
    install_id = models.UUIDField(editable=False)
    deleted_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=("tenant_id", "deleted_at"), name="mirrors_to_be_removed")]

    def __str__(self) -> str:
        return str(self.id)


class ScheduleRun(models.Model):
    """What became of one slot or one manual request. The id is the invocation id.

    A run outlives its schedule and its install, so it refers to them without a constraint and keeps what it ran.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    install = models.ForeignKey(
        ExtensionInstall,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    schedule = models.ForeignKey(
        Schedule,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    trigger = models.CharField(max_length=8, choices=Trigger.choices)
    slot = models.DateTimeField(help_text="When it was due; for a manual run, when it was asked for.")
    status = models.CharField(max_length=16, choices=RunStatus.choices)
    reason = models.CharField(max_length=256, blank=True)
    exclusive = models.BooleanField(db_default=True, help_text="Whether it keeps other runs of its schedule out.")
    attempts = models.PositiveSmallIntegerField(db_default=0)
    failed_envelopes = models.PositiveSmallIntegerField(
        db_default=0,
        help_text="Failed answers received so far: the second part of the idempotency key.",
    )
    attempt_log = models.JSONField(db_default=models.Value([], models.JSONField()), default=list)
    version = models.ForeignKey(
        ExtensionVersion,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    version_name = models.CharField(max_length=64, blank=True)
    content_hash = models.CharField(max_length=128, blank=True)
    endpoint_method = models.CharField(max_length=8, blank=True)
    endpoint_path = models.CharField(max_length=MAX_PATH_LENGTH, blank=True)
    schedule_revision = models.PositiveIntegerField(null=True)
    payload = models.JSONField(null=True)
    payload_given = models.BooleanField(
        db_default=False,
        help_text="Whether the request brought the payload, instead of the schedule.",
    )
    actor = models.CharField(max_length=256, blank=True, help_text="Who asked, for a manual run.")
    http_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=1024, blank=True)
    response_bytes = models.PositiveIntegerField(null=True)
    workflow_id = models.CharField(max_length=512, blank=True)
    workflow_run_id = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "run"
        verbose_name_plural = "runs"
        ordering = ("-slot", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "schedule", "slot"),
                condition=Q(trigger=Trigger.SCHEDULE),
                name="a_slot_has_one_run",
            ),
            models.UniqueConstraint(
                fields=("tenant", "schedule"),
                condition=Q(status=RunStatus.RUNNING, exclusive=True),
                name="a_schedule_has_one_run_in_flight",
            ),
            models.CheckConstraint(
                condition=Q(status__in=UNFINISHED_STATUSES, finished_at__isnull=True)
                | (~Q(status__in=UNFINISHED_STATUSES) & Q(finished_at__isnull=False)),
                name="a_run_is_finished_once_its_status_is_terminal",
            ),
        ]
        indexes = [
            models.Index(fields=("tenant", "schedule", "-slot", "-id"), name="runs_of_a_schedule"),
            models.Index(
                fields=("tenant", "created_at"),
                condition=Q(status__in=UNFINISHED_STATUSES),
                name="runs_not_yet_finished",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.slot:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from the first attempt's start to the end, or None while it has not ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds() * 1000)

    @property
    def lateness_ms(self) -> int | None:
        """Milliseconds from the slot to the first attempt's start."""
        if self.started_at is None:
            return None
        return round((self.started_at - self.slot).total_seconds() * 1000)


class AuditEvent(models.Model):
    """Who changed what, through which door. Only ever inserted."""

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField(null=True, editable=False, help_text="Null for what belongs to the platform.")
    at = models.DateTimeField(db_default=Now(), editable=False)
    source = models.CharField(max_length=16, editable=False)
    actor = models.CharField(max_length=256, editable=False)
    action = models.CharField(max_length=64, editable=False)
    subject_type = models.CharField(max_length=32, editable=False)
    subject_id = models.UUIDField(editable=False)
    before: models.JSONField[Any, Any] = models.JSONField(null=True, editable=False)
    after: models.JSONField[Any, Any] = models.JSONField(null=True, editable=False)

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=("tenant_id", "subject_id", "-at"), name="audit_of_a_subject"),
            models.Index(fields=("tenant_id", "-at"), name="audit_of_a_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor}"


class RateWindowEntry(models.Model):
    """One call that counts against a sliding window, e.g. the run-now requests of a tenant."""

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    subject = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=("tenant_id", "subject", "at"), name="calls_in_a_window")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.at}"
