"""What happened: the audit trail, and the calls that count against limits."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models.functions import Now


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


class IdempotencyRecord(models.Model):
    """A request that came with an idempotency key, and what was answered."""

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    install_id = models.UUIDField()
    operation = models.CharField(max_length=64)
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=64, help_text="Of what was asked for.")
    answer = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("tenant_id", "install_id", "operation", "key"), name="a_request_is_done_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.operation} {self.key}"


class Deployment(models.Model):
    """The one row that says which deployment this database belongs to: the mark that its mirrors carry in Temporal."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    mark = models.UUIDField(default=uuid.uuid4)

    def __str__(self) -> str:
        return str(self.mark)


class OrphanSighting(models.Model):
    """A mirror with our mark that no row stands behind; it is deleted when it is seen again later."""

    mirror_id = models.CharField(primary_key=True, max_length=128)
    first_seen_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.mirror_id


class PassRecord(models.Model):
    """When a regular pass last came to its end."""

    name = models.CharField(max_length=16, primary_key=True)
    finished_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} of {self.finished_at}"

    @classmethod
    def note(cls, name: str) -> None:
        """Write down that it has ended just now."""
        cls.objects.update_or_create(name=name, defaults={"finished_at": Now()})


class ComparisonRecord(models.Model):
    """The one row that says how the last full comparison of rows and mirrors ended."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    finished_at = models.DateTimeField()
    compared = models.PositiveIntegerField()
    held = models.PositiveIntegerField()
    drift = models.JSONField(default=dict)
    refused = models.CharField(max_length=256, blank=True)

    def __str__(self) -> str:
        return f"comparison of {self.finished_at}"
