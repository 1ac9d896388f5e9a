"""What a tenant keeps beside its schedules: notification channels and API keys, each secret shown once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.db.models import QuerySet
from django.http import HttpRequest

from schedules import api_keys, notifications
from schedules.admin import display
from schedules.admin.base import TenantFilter, TenantScopedAdmin, actor_of, may_write, visible_tenants
from schedules.errors import SchedulingError
from schedules.models import (
    MAX_NAME_LENGTH,
    MAX_TARGET_LENGTH,
    ApiKey,
    Notification,
    NotificationChannel,
    NotificationEvent,
    NotificationKind,
    Role,
    Tenant,
)


class TenantOwnedForm(forms.ModelForm[Any]):
    """Writes in `clean`, where every refusal of the service can stand at its field; `save` has nothing left to do."""

    request: HttpRequest

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "tenant" in self.fields:
            tenants = Tenant.objects.all()
            known = visible_tenants(self.request.user)
            field = self.fields["tenant"]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = tenants if known is None else tenants.filter(id__in=known)
            if known is not None and len(known) == 1:
                field.initial, field.empty_label = known[0], None
            if isinstance(field.widget, RelatedFieldWidgetWrapper):
                field.widget.can_view_related = False

    def clean(self) -> dict[str, Any]:
        """Write through the service once the input has its shape."""
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        tenant_id = self.instance.tenant_id or cleaned["tenant"].id
        if not may_write(self.request.user, tenant_id=tenant_id):
            raise forms.ValidationError("You may look at what this tenant keeps, and not change it")
        try:
            self.instance = self.write(tenant_id, cleaned)
        except SchedulingError as error:
            for name, message in error.fields.items():
                self.add_error(name if name in self.fields else None, message)
            if not error.fields:
                raise forms.ValidationError(error.message) from error
        return cleaned

    @abstractmethod
    def write(self, tenant_id: Any, cleaned: dict[str, Any]) -> Any:
        """Do it; returns the row."""

    def _post_clean(self) -> None:
        """Leave the row alone: the service has written it."""


class ChannelForm(TenantOwnedForm):
    """A notification channel."""

    kind = forms.ChoiceField(choices=NotificationKind.choices)
    target = forms.CharField(
        max_length=MAX_TARGET_LENGTH,
        help_text="An e-mail address, or a webhook's URL.",
    )
    events = forms.MultipleChoiceField(
        choices=NotificationEvent.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="Failure and recovery are told once for each streak.",
    )
    is_active = forms.BooleanField(required=False, initial=True)

    class Meta:
        model = NotificationChannel
        fields = ("tenant", "kind", "target", "events", "is_active")

    def write(self, tenant_id: Any, cleaned: dict[str, Any]) -> NotificationChannel:
        """Create or change it."""
        actor = actor_of(self.request)
        if self.instance._state.adding:  # noqa: SLF001 - documented at Model._state
            common = {"kind": cleaned["kind"], "target": cleaned["target"], "events": cleaned["events"]}
            return notifications.create_channel(tenant_id=tenant_id, actor=actor, **common)
        return notifications.update_channel(
            tenant_id=tenant_id,
            channel_id=self.instance.id,
            target=cleaned["target"],
            events=cleaned["events"],
            is_active=cleaned["is_active"],
            actor=actor,
        )


class ApiKeyForm(TenantOwnedForm):
    """A new API key."""

    name = forms.CharField(max_length=MAX_NAME_LENGTH)
    role = forms.ChoiceField(choices=Role.choices)
    expires_at = forms.SplitDateTimeField(
        required=False,
        widget=forms.SplitDateTimeWidget(
            date_attrs={"type": "date", "aria-label": "Date"}, time_attrs={"type": "time", "aria-label": "Time"}
        ),
        help_text="UTC; empty for never.",
    )
    text = ""

    class Meta:
        model = ApiKey
        fields = ("tenant", "name", "role", "expires_at")

    def write(self, tenant_id: Any, cleaned: dict[str, Any]) -> ApiKey:
        """Create it."""
        key, self.text = api_keys.create_key(
            tenant_id=tenant_id,
            name=cleaned["name"],
            role=Role(cleaned["role"]),
            expires_at=cleaned["expires_at"],
            actor=actor_of(self.request),
        )
        return key


class TenantOwnedAdmin(TenantScopedAdmin):
    """What administrators of the tenant may add."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        """The form, which needs to know who asks."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"request": request})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant."""
        return may_write(request.user)

    def get_actions(self, request: HttpRequest) -> Any:
        """Without the stock deletion, which goes past the services."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:  # noqa: FBT001
        """The row that the form has written."""
        return form.instance

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Nothing is left to do."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: FBT001
        """Nothing belongs to it."""


@admin.register(NotificationChannel)
class NotificationChannelAdmin(TenantOwnedAdmin):
    """Whom the tenant wants told of what."""

    form = ChannelForm
    empty_hint = "A channel tells you by e-mail or webhook of failures, recoveries, pauses and missed slots."
    list_display = ("target", "kind", "tenant", "told_of", "is_active", "created_at")
    list_filter = ("kind", "is_active")
    list_select_related = ("tenant",)
    search_fields = ("target",)
    fields = ("tenant", "kind", "target", "events", "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: NotificationChannel | None = None) -> Any:
        """A channel stays with its tenant and what it is."""
        return () if obj is None else ("tenant",)

    def has_change_permission(self, request: HttpRequest, obj: NotificationChannel | None = None) -> bool:
        """Whoever may write in the channel's tenant."""
        return may_write(request.user, tenant_id=obj.tenant_id if obj else None)

    def has_delete_permission(self, request: HttpRequest, obj: NotificationChannel | None = None) -> bool:
        """Whoever may write in the channel's tenant."""
        return self.has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Show a webhook's secret, this once."""
        if not change and obj.secret:
            messages.warning(request, display.shown_once("The webhook's signing secret, shown this once", obj.secret))

    def delete_model(self, request: HttpRequest, obj: NotificationChannel) -> None:
        """Delete through the service."""
        notifications.delete_channel(tenant_id=obj.tenant_id, channel_id=obj.id, actor=actor_of(request))

    @admin.display(description="told of")
    def told_of(self, channel: NotificationChannel) -> str:
        """The events, in words."""
        return ", ".join(NotificationEvent(event).label.lower() for event in channel.events)


@admin.register(Notification)
class NotificationAdmin(TenantScopedAdmin):
    """Messages and whether they have arrived."""

    list_display = ("created_at", "event", "channel", "attempts", "delivered_at", "next_attempt_at", "last_error")
    list_filter = ("event",)
    list_select_related = ("channel",)


@admin.register(ApiKey)
class ApiKeyAdmin(TenantOwnedAdmin):
    """The tenant's keys, by their first characters."""

    form = ApiKeyForm
    empty_hint = "A key lets your own tools keep schedules through the admin API."
    list_filter = (TenantFilter, "role")
    list_display = ("name", "tenant", "role", "prefix", "last_used_at", "expires_at", "revoked_at")
    list_select_related = ("tenant",)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """What is asked for, or all that is known."""
        asked = ("tenant", "name", "role", "expires_at")
        return asked if obj is None else (*asked, "prefix", "created_at", "last_used_at", "revoked_at")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant; which keys is checked for each."""
        return may_write(request.user)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Show the key, this once."""
        messages.warning(request, display.shown_once("The key, shown this once", form.text))

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> None:
        """End each at once."""
        for key in rows:
            if not may_write(request.user, tenant_id=key.tenant_id):
                messages.error(request, f"{key}: you may not change this tenant's keys")
                continue
            api_keys.revoke_key(tenant_id=key.tenant_id, key_id=key.id, actor=actor_of(request))
            messages.success(request, f"{key} is revoked")
