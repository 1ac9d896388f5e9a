"""What a tenant keeps beside its schedules: notification channels and API keys, each secret shown once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any
from uuid import UUID, uuid4

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from schedules import api_keys, notifications, queries
from schedules.admin import confirm, display, once
from schedules.admin.base import TenantFilter, TenantScopedAdmin, actor_of, may_write, visible_tenants
from schedules.admin.written import ServiceAdmin, ServiceForm
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


class TenantOwnedForm(ServiceForm):
    """Of something that stays with the tenant it was made for."""

    # A repeat of the same form, e.g. by a reload of its answer, makes nothing.
    request_key = forms.UUIDField(required=False, widget=forms.HiddenInput, initial=uuid4)

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

    def write(self, cleaned: dict[str, Any]) -> Any:
        """Write into the row's tenant, or the chosen one."""
        tenant_id = self.instance.tenant_id or cleaned["tenant"].id
        if not may_write(self.request.user, tenant_id=tenant_id):
            raise forms.ValidationError("You may look at what this tenant keeps, and not change it")
        return self.write_into(tenant_id, cleaned)

    @abstractmethod
    def write_into(self, tenant_id: UUID, cleaned: dict[str, Any]) -> Any:
        """Do it; returns the row."""


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

    def write_into(self, tenant_id: UUID, cleaned: dict[str, Any]) -> NotificationChannel:
        """Create or change it."""
        actor = actor_of(self.request)
        if self.is_new:
            return notifications.create_channel(
                tenant_id=tenant_id,
                kind=cleaned["kind"],
                target=cleaned["target"],
                events=cleaned["events"],
                actor=actor,
                channel_id=cleaned["request_key"],
            )
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

    def write_into(self, tenant_id: UUID, cleaned: dict[str, Any]) -> ApiKey:
        """Create it."""
        key, self.text = api_keys.create_key(
            tenant_id=tenant_id,
            name=cleaned["name"],
            role=Role(cleaned["role"]),
            expires_at=cleaned["expires_at"],
            actor=actor_of(self.request),
            key_id=cleaned["request_key"],
        )
        return key


class TenantOwnedAdmin(ServiceAdmin):
    """What administrators of the tenant may add."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant."""
        return may_write(request.user)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """The tenant, which a link may name, and nothing else."""
        chosen = queries.parse_uuid(request.GET.get("tenant", ""))
        return {} if chosen is None else {"tenant": chosen}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """The form, unless it has made its row already."""
        made = once.id_of(request) if object_id is None else None
        if made is not None and self.get_queryset(request).filter(id=made).exists():
            noun = self.opts.verbose_name
            messages.warning(request, f"The {noun} was made when the form was sent first. A secret is shown only once.")
            return self.back_to_list()
        return super().changeform_view(request, object_id, form_url, extra_context)

    def show_once(self, request: HttpRequest, *, title: str, advice: str, secret: str) -> TemplateResponse:
        """A secret in the very answer to the form that made it, which no other page has."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "advice": advice,
            "secret": secret,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/schedules/shown_once.html", context)


@admin.register(NotificationChannel)
class NotificationChannelAdmin(TenantOwnedAdmin):
    """Whom the tenant wants told of what."""

    form = ChannelForm
    empty_hint = "A channel tells you by e-mail or webhook of failures, recoveries, pauses and missed slots."
    list_display = ("target", "kind", "tenant", "told_of", "is_active", display.moment_column("created_at"))
    list_filter = ("kind", "is_active")
    list_select_related = ("tenant",)
    search_fields = ("target",)

    def get_fields(self, request: HttpRequest, obj: NotificationChannel | None = None) -> Any:
        """A new one is active."""
        asked = ("tenant", "kind", "target", "events")
        return (*asked, "request_key") if obj is None else (*asked, "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: NotificationChannel | None = None) -> Any:
        """A channel stays with its tenant and what it is."""
        return () if obj is None else ("tenant", "kind")

    def has_change_permission(self, request: HttpRequest, obj: NotificationChannel | None = None) -> bool:
        """Whoever may write in the channel's tenant."""
        return may_write(request.user, tenant_id=obj.tenant_id if obj else None)

    def has_delete_permission(self, request: HttpRequest, obj: NotificationChannel | None = None) -> bool:
        """Whoever may write in the channel's tenant."""
        return self.has_change_permission(request, obj)

    def response_add(
        self, request: HttpRequest, obj: NotificationChannel, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show a webhook's secret, this once."""
        if not obj.secret:
            return super().response_add(request, obj, post_url_continue)
        return self.show_once(
            request,
            title=f"The signing secret of {obj.target}",
            advice="Each message to the webhook is signed with it; whoever receives them checks that by it.",
            secret=obj.secret,
        )

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

    list_display = (
        display.moment_column("created_at"),
        "event",
        "channel",
        "attempts",
        display.moment_column("delivered_at"),
        display.moment_column("next_attempt_at"),
        "last_error",
    )
    list_filter = ("event",)
    list_select_related = ("channel",)


@admin.register(ApiKey)
class ApiKeyAdmin(TenantOwnedAdmin):
    """The tenant's keys, by their first characters."""

    form = ApiKeyForm
    empty_hint = "A key lets your own tools keep schedules through the admin API."
    list_filter = (TenantFilter, "role")
    list_display = (
        "name",
        "tenant",
        "role",
        "prefix",
        *(display.moment_column(member) for member in ("last_used_at", "expires_at", "revoked_at")),
    )
    list_select_related = ("tenant",)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """What is asked for, or all that is known."""
        asked = ("tenant", "name", "role", "expires_at")
        return (
            (*asked, "request_key") if obj is None else (*asked, "prefix", "created_at", "last_used_at", "revoked_at")
        )

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant; which keys is checked for each."""
        return may_write(request.user)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Hand the text on to the answer."""
        obj.text = form.text

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key, this once."""
        advice = "Send it as Authorization: Api-Key, a space, and the key."
        return self.show_once(request, title=f"The API key {obj.name}", advice=advice, secret=obj.text)

    @admin.action(description="Revoke…", permissions=["revoke"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> TemplateResponse | None:
        """End each at once, after a question."""
        keys = []
        for key in rows:
            if not may_write(request.user, tenant_id=key.tenant_id):
                messages.error(request, f"{key}: you may not change this tenant's keys")
            elif key.revoked_at is not None:
                messages.info(request, f"{key} was revoked before")
            else:
                keys.append(key)
        if keys and "confirmed" not in request.POST:
            return self._ask(request, keys)
        for key in keys:
            try:
                api_keys.revoke_key(tenant_id=key.tenant_id, key_id=key.id, actor=actor_of(request))
            except SchedulingError as error:
                messages.error(request, f"{key}: {error.message}")
            else:
                messages.success(request, f"{key} is revoked")
        return None

    def _ask(self, request: HttpRequest, keys: list[ApiKey]) -> TemplateResponse:
        question = confirm.Question(
            f"Revoke {len(keys)} API key{'' if len(keys) == 1 else 's'}?",
            (
                "Whatever uses it is refused from the next request on.",
                "This cannot be undone. Another key has another text, which has to be given to whatever uses this one.",
            ),
            "Revoke",
            is_destructive=True,
        )
        asked = confirm.ask(
            self, request, question, back=display.address("apikey_changelist"), hidden={"action": "revoke"}
        )
        asked.template_name = "admin/schedules/revoke_keys.html"
        asked.context_data = {**(asked.context_data or {}), "keys": keys}
        return asked
