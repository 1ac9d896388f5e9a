"""Schedules: the one thing that tenant administrators change here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponseRedirect
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from schedules import payloads, policies, queries, runs, services
from schedules.admin.base import TenantScopedAdmin, act_on_each, actor_of, may_write
from schedules.admin.runs import STATUS_COLOURS
from schedules.changes import ScheduleChanges
from schedules.errors import SchedulingError
from schedules.models import ApiEndpoint, ExtensionInstall, Schedule, SyncState

_SERVICE_MEMBERS = ("name", "cron", "timezone", "enabled", "payload")
_POLICY_FIELDS = (
    ("overlap_policy", "catch_up_policy"),
    ("retry_max_attempts", "retry_first_delay_seconds"),
    ("retry_factor", "retry_longest_delay_seconds"),
    ("run_deadline_seconds", "attempt_timeout_seconds"),
    "pause_after_failures",
)


class EndpointChoice(forms.ModelChoiceField[ApiEndpoint]):
    """An endpoint by method and path, with the version that declares it."""

    def label_from_instance(self, obj: ApiEndpoint) -> str:
        """What the list shows."""
        return f"{obj} - {obj.version}"


class PayloadField(forms.JSONField):
    """JSON that can be read, stored and shown again; anything else is an error at the field."""

    def to_python(self, value: Any) -> Any:
        """Decode, or refuse."""
        try:
            decoded = super().to_python(value)
        except (ValueError, RecursionError) as error:  # e.g. a number of ten thousand digits
            raise ValidationError("Enter a valid JSON.", code="invalid") from error
        if problem := payloads.problem_with_json(decoded):
            raise ValidationError(f"payload {problem}", code="invalid")
        return decoded

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed, where it cannot be shown any other way."""
        try:
            self.to_python(data)
            return super().bound_data(data, initial)
        except ValidationError:
            return InvalidJSONInput(data)


class ScheduleForm(forms.ModelForm[Schedule]):
    """Asks the service whether it would take the input; rules live there alone."""

    request: HttpRequest

    endpoint = EndpointChoice(queryset=ApiEndpoint.objects.none(), widget=UnfoldAdminSelectWidget)
    name = forms.CharField(
        required=False, max_length=128, widget=UnfoldAdminTextInputWidget, help_text="Unique within the extension."
    )
    cron = forms.CharField(
        widget=UnfoldAdminTextInputWidget,
        help_text="Minute, hour, day of month, month, day of week; e.g. 0 9 * * MON-FRI for 9:00 on working days.",
    )
    timezone = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="An IANA name such as Europe/Berlin; empty for the tenant's zone.",
    )
    enabled = forms.BooleanField(required=False, initial=True, widget=UnfoldBooleanSwitchWidget)
    seen_revision = forms.IntegerField(required=False, widget=forms.HiddenInput)
    payload = PayloadField(
        required=False, widget=UnfoldAdminTextareaWidget, help_text="A JSON object or array that is sent along."
    )

    class Meta:
        model = Schedule
        fields = ("install", "endpoint", "name", "cron", "timezone", "enabled", "payload", *sorted(policies.MEMBERS))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["seen_revision"] = self.instance.revision
        for name in policies.MEMBERS & self.fields.keys():
            self.fields[name].required = False
        installs = ExtensionInstall.objects.select_related("extension", "tenant")
        tenants = queries.visible_tenants(self.request.user)
        if tenants is not None:
            installs = installs.filter(tenant_id__in=tenants)
        if not self.is_new:
            installs = installs.filter(id=self.instance.install_id)
        if "install" in self.fields:
            cast("forms.ModelChoiceField[ExtensionInstall]", self.fields["install"]).queryset = installs
        endpoints = ApiEndpoint.objects.filter(schedulable=True, version__installs__in=installs).distinct()
        choice = cast("EndpointChoice", self.fields["endpoint"])
        choice.queryset = endpoints.select_related("version__extension")

    @property
    def is_new(self) -> bool:
        """Whether the form creates; the id is no sign of it, because it is made beforehand."""
        return self.instance._state.adding  # noqa: SLF001 - documented at Model._state

    def clean(self) -> dict[str, Any]:
        """Try the write and take it back, so that every refusal stands at its field."""
        cleaned = super().clean() or self.cleaned_data
        install = cleaned.get("install") if self.is_new else self.instance.install
        if self.errors or install is None:
            return cleaned
        if not may_write(self.request.user, tenant_id=install.tenant_id):
            raise ValidationError("You may look at this tenant's schedules, and not change them")
        try:
            services.check_schedule(
                tenant_id=install.tenant_id,
                install_id=install.id,
                schedule_id=None if self.is_new else self.instance.pk,
                changes=self.changes(),
                expected_revisions=self.expected_revisions(),
            )
        except SchedulingError as error:
            for field, message in error.fields.items():
                self.add_error(_form_field(field, self.fields), message)
            if not error.fields:
                raise ValidationError(error.message) from error
        return cleaned

    def expected_revisions(self) -> set[int] | None:
        """The revision that the form was opened with, so that somebody else's change meanwhile is not undone."""
        seen = None if self.is_new else self.cleaned_data.get("seen_revision")
        return None if seen is None else {seen}

    def changes(self) -> ScheduleChanges:
        """The input as the service takes it."""
        values: dict[str, Any] = {name: self.cleaned_data[name] for name in _SERVICE_MEMBERS}
        for name in policies.MEMBERS & self.cleaned_data.keys():
            # An empty one keeps what is there, where null has no meaning of its own.
            if self.cleaned_data[name] not in {None, ""} or policies.is_nullable(name):
                values[name] = self.cleaned_data[name]
        values["endpoint_id"] = self.cleaned_data["endpoint"].id
        values["timezone"] = values["timezone"] or None
        return cast("ScheduleChanges", values)

    def _post_clean(self) -> None:
        """Leave the row alone: the service sets and validates it."""


@admin.register(Schedule)
class ScheduleAdmin(TenantScopedAdmin):
    """The schedules of the user's tenants."""

    form = ScheduleForm
    list_display = (
        "title",
        "install",
        "endpoint_text",
        "cron",
        "timezone",
        "enabled",
        "last_run",
        "next_slot",
        "coloured_sync_state",
    )
    # The plain filter would offer every tenant's extensions.
    list_filter = ("enabled", "last_run_status", ("install__extension", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("install__extension", "install__tenant")
    search_fields = ("name", "endpoint_path", "id")
    readonly_fields = (
        "id",
        "mirror",
        "sync_error",
        "hold",
        "disabled_reason",
        "next_slot",
        "last_run_at",
        "last_run_status",
        "last_error",
        "last_success_at",
        "consecutive_failures",
        "created_at",
        "updated_at",
    )
    actions = ("enable", "disable", "run_now", "lift_hold", "delete_through_service")

    def get_form(self, request: HttpRequest, obj: Schedule | None = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        """The form, which needs to know who asks."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"request": request})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What is asked for, the policies folded away, and on an existing schedule what became of it."""
        asked = ("install", "endpoint", "name", "cron", "timezone", "enabled", "payload")
        policies_set = ("Policies", {"fields": _POLICY_FIELDS, "classes": ["collapse"]})
        if obj is None:
            return ((None, {"fields": asked}), policies_set)
        return (
            (None, {"fields": (*asked, "seen_revision")}),
            policies_set,
            ("What became of it", {"fields": self.readonly_fields}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        """A schedule stays with its install."""
        return self.readonly_fields if obj is None else ("install", *self.readonly_fields)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant."""
        return may_write(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        """Whoever may write in the schedule's tenant."""
        return may_write(request.user, tenant_id=obj.tenant_id if obj else None)

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        """Whoever may write in the schedule's tenant."""
        return self.has_change_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> Any:
        """Ours alone: the stock deletion goes past the services."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show what the service refused after the form was checked, e.g. because somebody else was quicker."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except SchedulingError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Write through the service."""
        install = obj.install if change else form.cleaned_data["install"]
        common: dict[str, Any] = {
            "tenant_id": install.tenant_id,
            "install_id": install.id,
            "changes": form.changes(),
            "actor": actor_of(request),
        }
        if change:
            common |= {"schedule_id": obj.id, "expected_revisions": form.expected_revisions()}
        saved = (services.update_schedule if change else services.create_schedule)(**common)
        obj.__dict__.update(saved.__dict__)

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        """Delete through the service."""
        services.delete_schedule(
            tenant_id=obj.tenant_id, install_id=obj.install_id, schedule_id=obj.id, actor=actor_of(request)
        )

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Enable each."""
        act_on_each(request, rows, lambda **ids: services.set_enabled(enabled=True, **ids), done="enabled")

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Disable each."""
        act_on_each(request, rows, lambda **ids: services.set_enabled(enabled=False, **ids), done="disabled")

    @admin.action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Ask for a run of each."""
        act_on_each(request, rows, runs.request_run_now, done="asked to run")

    @admin.action(description="Lift the operator's hold", permissions=["change"])
    def lift_hold(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Lift the pause that an operator set in Temporal on each."""
        act_on_each(request, rows, services.lift_hold, done="released from hold")

    @admin.action(description="Delete", permissions=["delete"])
    def delete_through_service(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Delete each."""
        act_on_each(request, rows, services.delete_schedule, done="deleted")

    @admin.display(description="schedule", ordering="name")
    def title(self, schedule: Schedule) -> str:
        """The name, or what stands for one."""
        return str(schedule)

    @admin.display(description="endpoint", ordering="endpoint_path")
    def endpoint_text(self, schedule: Schedule) -> str:
        """What is called."""
        return f"{schedule.endpoint_method} {schedule.endpoint_path}"

    @display(description="last run", ordering="last_run_at", label=STATUS_COLOURS)
    def last_run(self, schedule: Schedule) -> Any:
        """How the last run ended, and when."""
        if schedule.last_run_at is None:
            return None
        when = f"{schedule.last_run_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return schedule.last_run_status, f"{schedule.get_last_run_status_display()} {when}"

    @admin.display(description="next slot")
    def next_slot(self, schedule: Schedule) -> str:
        """When it is due next."""
        slot = queries.next_slot_of(schedule, after=datetime.now(UTC), install_enabled=schedule.install.is_enabled)
        return "-" if slot is None else f"{slot:%Y-%m-%d %H:%M} UTC"

    @admin.display(description="mirror")
    def mirror(self, schedule: Schedule) -> str:
        """Whether Temporal shows what this row says, in a word."""
        return schedule.sync_state.label

    @admin.display(description="operator's hold")
    def hold(self, schedule: Schedule) -> str:
        """Since when an operator has held it in Temporal, and why."""
        if schedule.held_since is None:
            return "-"
        since = f"since {schedule.held_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{since}: {schedule.held_note}" if schedule.held_note else since

    @display(
        description="mirror",
        label={SyncState.SYNCED: "success", SyncState.PENDING: "warning", SyncState.FAILED: "danger", "held": "info"},
    )
    def coloured_sync_state(self, schedule: Schedule) -> tuple[str, str]:
        """Whether Temporal shows what this row says, or an operator holds it there."""
        if schedule.held_since is not None:
            return "held", "Held"
        return schedule.sync_state, schedule.sync_state.label


def _form_field(member: str, fields: Any) -> str | None:
    """The form's field for a member of the service's input; None puts the message above the form."""
    name = "endpoint" if member == "endpoint_id" else member
    return name if name in fields else None
