"""What the platform brings in: tenants, who works in them, extensions, versions, endpoints, installs."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from schedules.models.choices import MAX_NAME_LENGTH, MAX_PATH_LENGTH, HttpMethod, Role


class Tenant(models.Model):
    """A customer of the platform. The id comes from the platform."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    timezone = models.CharField(max_length=64, default="UTC", help_text="The zone of schedules that name none.")
    keep_succeeded_days = models.PositiveSmallIntegerField(
        db_default=30, default=30, help_text="How long runs that succeeded are kept."
    )
    keep_other_days = models.PositiveSmallIntegerField(
        db_default=90, default=90, help_text="How long all other runs are kept."
    )
    deleted_at = models.DateTimeField(
        null=True, editable=False, help_text="Since when it is being deleted; its history goes last."
    )
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
    endpoints_read_at = models.DateTimeField(
        null=True, editable=False, help_text="When its endpoints were read from the manifest; null if never."
    )
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
