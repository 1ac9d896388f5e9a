"""The form of a schedule: its fields, what they offer, and what stands there when somebody else was quicker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID, uuid4

from django import forms
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest

from schedules import audit, cron, payloads, policies, queries, services
from schedules.admin import once, zones
from schedules.admin.base import may_write, visible_tenants
from schedules.changes import ScheduleChanges
from schedules.errors import SchedulingError, StaleRevision
from schedules.models import ApiEndpoint, AuditEvent, ExtensionInstall, Schedule

_CREATE: Final = "admin create_schedule"
# What the trail says of a change that another form would undo.
_CHANGES: Final = ("schedule.updated", "schedule.paused", "schedule.upgraded")
SERVICE_MEMBERS: Final = ("name", "cron", "timezone", "enabled", "payload")
POLICY_FIELDS: Final = (
    ("overlap_policy", "catch_up_policy"),
    ("retry_max_attempts", "retry_first_delay_seconds"),
    ("retry_factor", "retry_longest_delay_seconds"),
    ("run_deadline_seconds", "attempt_timeout_seconds"),
    "pause_after_failures",
)
_LABELS: Final = {
    "overlap_policy": "While a run is in flight",
    "catch_up_policy": "After an outage",
    "retry_max_attempts": "Attempts at most",
    "retry_first_delay_seconds": "Seconds before the second attempt",
    "retry_factor": "Each further pause is longer by",
    "retry_longest_delay_seconds": "Longest pause in seconds",
    "run_deadline_seconds": "Seconds for a run with all attempts",
    "attempt_timeout_seconds": "Seconds for one attempt",
    "pause_after_failures": "Pause after so many failed runs in a row",
}
_HELP: Final = {
    "attempt_timeout_seconds": "Empty for the platform's limit, which is also the highest.",
    "pause_after_failures": "Empty for the default (20, or 5 where it is due hourly or less often); 0 for never.",
    "retry_factor": "2 doubles it each time.",
}
POLICY_CHOICES: Final = {
    "overlap_policy": (
        ("skip", "Skip the slot that is due meanwhile"),
        ("queue", "Queue it until the run has ended"),
        ("cancel_running", "Cancel the run, start the new one"),
        ("allow", "Let both run side by side"),
    ),
    "catch_up_policy": (
        ("none", "Leave late slots missed"),
        ("latest", "Run the newest of the late slots"),
        ("all", "Run all late slots, 100 at most"),
    ),
}


class EndpointSelect(forms.Select):
    """Shows the endpoints that cannot be scheduled, too, disabled and with the reason."""

    refused: Iterable[ApiEndpoint] = ()

    def optgroups(self, name: str, value: list[str], attrs: dict[str, Any] | None = None) -> Any:
        """The usual ones, and the others in a group of their own."""
        groups = super().optgroups(name, value, attrs)
        options = []
        for index, endpoint in enumerate(self.refused):
            label = f"{endpoint}: {endpoint.unschedulable_reason or 'not schedulable'}"
            option = self.create_option(name, "", label, selected=False, index=index, attrs=attrs)
            option["attrs"] = {"disabled": True}
            options.append(option)
        if options:
            groups.append(("Cannot be scheduled", options, len(groups)))
        return groups


class EndpointChoice(forms.ModelChoiceField[ApiEndpoint]):
    """An endpoint of the installed version."""

    widget = EndpointSelect(attrs={"data-combobox": ""})


class PayloadField(forms.JSONField):
    """JSON that can be read, stored and shown again; anything else is an error at the field."""

    def to_python(self, value: Any) -> Any:
        """Decode, or refuse."""
        try:
            decoded = super().to_python(value)
        except ValidationError:
            raise ValidationError(_problem_with_text(value), code="invalid") from None
        except (ValueError, RecursionError) as error:  # e.g. a number of ten thousand digits
            raise ValidationError("Enter a valid JSON.", code="invalid") from error
        if problem := payloads.problem_with_json(decoded):
            raise ValidationError(f"payload {problem}", code="invalid")
        return decoded

    def prepare_value(self, value: Any) -> Any:
        """Readable, one member a line."""
        if isinstance(value, InvalidJSONInput):
            return value
        return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed, where it cannot be shown any other way."""
        try:
            self.to_python(data)
            return super().bound_data(data, initial)
        except ValidationError:
            return InvalidJSONInput(data)


def _problem_with_text(text: Any) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"Enter a valid JSON. {error.msg} in line {error.lineno}, column {error.colno}."
    return "Enter a valid JSON."


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A field of which there are two versions."""

    label: str
    mine: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else saved while this form was open."""

    revision: int
    rows: list[ConflictRow]
    # Who it was, and when.
    saved: AuditEvent | None


class ScheduleForm(forms.ModelForm[Schedule]):
    """Asks the service whether it would take the input; rules live there alone."""

    request: HttpRequest
    fixed_install: ExtensionInstall | None = None
    conflict: Conflict | None = None

    endpoint = EndpointChoice(queryset=ApiEndpoint.objects.none(), empty_label="Choose an endpoint")
    name = forms.CharField(required=False, max_length=128, help_text="Unique within the extension; may stay empty.")
    cron = forms.CharField(
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "maxlength": 128}),
        help_text="Minute, hour, day of month, month, day of week; e.g. 0 9 * * MON-FRI for 9:00 on working days.",
    )
    timezone = forms.CharField(
        label="Time zone",
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "list": "zone-names"}),
        help_text="A part of the name will do, such as Berlin; empty for the tenant's zone.",
    )
    enabled = forms.BooleanField(required=False, initial=True)
    seen_revision = forms.IntegerField(required=False, widget=forms.HiddenInput)
    payload = PayloadField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "data-json": ""}),
        help_text="A JSON object or array that is sent along; empty for none.",
    )

    class Meta:
        model = Schedule
        fields = ("install", "endpoint", "name", "cron", "timezone", "enabled", "payload", *sorted(policies.MEMBERS))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["seen_revision"] = self.instance.revision
        for name in policies.MEMBERS & self.fields.keys():
            self._describe_policy(name)
        install = self.instance.install if not self.is_new else self.fixed_install
        if "install" in self.fields:
            self._offer_installs(install)
        if install is not None:
            self._offer_endpoints(install)
            if self.is_new and "timezone" in self.fields:
                self.fields["timezone"].widget.attrs["placeholder"] = install.tenant.timezone

    def _describe_policy(self, name: str) -> None:
        field = self.fields[name]
        field.required, field.label = False, _LABELS[name]
        field.help_text = _HELP.get(name, "")
        if name in POLICY_CHOICES:
            cast("forms.ChoiceField", field).choices = POLICY_CHOICES[name]

    def _offer_installs(self, install: ExtensionInstall | None) -> None:
        installs = ExtensionInstall.objects.select_related("extension", "tenant")
        tenants = visible_tenants(self.request.user)
        if tenants is not None:
            installs = installs.filter(tenant_id__in=tenants)
        if install is not None:
            installs = installs.filter(id=install.id)
            self.initial.setdefault("install", install.id)
        field = cast("forms.ModelChoiceField[ExtensionInstall]", self.fields["install"])
        field.queryset, field.empty_label, field.label = installs, None, "Extension"
        if isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget.can_view_related = False

    def _offer_endpoints(self, install: ExtensionInstall) -> None:
        declared = ApiEndpoint.objects.filter(version_id=install.version_id).order_by("path", "method")
        field = cast("EndpointChoice", self.fields["endpoint"])
        field.queryset = declared.filter(schedulable=True)
        field.widget.refused = declared.filter(schedulable=False)

    @property
    def is_new(self) -> bool:
        """Whether the form creates; the id is no sign of it, because it is made beforehand."""
        return self.instance._state.adding  # noqa: SLF001 - documented at Model._state

    @property
    def request_key(self) -> UUID:
        """What a second click on the same page is recognised by."""
        return uuid4()

    @property
    def hint(self) -> str:
        """Why nothing can come of the form as things are; empty where something can."""
        install = self.fixed_install if self.is_new else self.instance.install
        if install is None:
            return ""
        if not install.is_enabled:
            what = "created" if self.is_new else "enabled"
            return f"The extension is disabled. Until it is enabled again, no schedule of it can be {what}."
        if not ApiEndpoint.objects.filter(version_id=install.version_id, schedulable=True).exists():
            return "The installed version of the extension declares no endpoint that can be scheduled."
        return ""

    @property
    def zone_names(self) -> list[str]:
        """What the zone may be."""
        return cron.zone_names()

    def clean_timezone(self) -> str:
        """The zone's whole name for a part of it."""
        return zones.complete(self.cleaned_data["timezone"])

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
            if self.is_new and once.was_done(self.request, **self._creation(install)):
                return cleaned  # its name is taken by itself
            if isinstance(error, StaleRevision):
                self.conflict = self._find_conflict()
            for field, message in error.fields.items():
                self.add_error(_form_field(field, self.fields), message)
            if not error.fields:
                raise ValidationError(error.message) from error
        return cleaned

    def expected_revisions(self) -> set[int] | None:
        """The revision that the form was opened with, so that somebody else's change meanwhile is not undone.

        Whoever has seen both versions and keeps theirs names the one that they have seen.
        """
        if self.is_new:
            return None
        overwritten = self.data.get("_overwrite", "")
        seen = int(overwritten) if overwritten.isdecimal() else self.cleaned_data.get("seen_revision")
        return None if seen is None else {seen}

    def changes(self) -> ScheduleChanges:
        """The input as the service takes it."""
        values: dict[str, Any] = {name: self.cleaned_data[name] for name in SERVICE_MEMBERS}
        for name in policies.MEMBERS & self.cleaned_data.keys():
            # An empty one keeps what is there, where null has no meaning of its own.
            if self.cleaned_data[name] not in {None, ""} or policies.is_nullable(name):
                values[name] = self.cleaned_data[name]
        values["endpoint_id"] = self.cleaned_data["endpoint"].id
        values["timezone"] = values["timezone"] or None
        return cast("ScheduleChanges", values)

    def create(self, install: ExtensionInstall, *, actor: audit.Actor) -> Schedule:
        """Create the schedule; the same form sent again gives the same one back."""
        ids: dict[str, Any] = {"tenant_id": install.tenant_id, "install_id": install.id}

        def work() -> dict[str, Any]:
            return {"id": str(services.create_schedule(**ids, changes=self.changes(), actor=actor).id)}

        made = once.do_once(self.request, work, **self._creation(install))
        return queries.find_schedule(**ids, schedule_id=UUID(made["id"]))

    def _creation(self, install: ExtensionInstall) -> dict[str, Any]:
        """What tells this creation from others."""
        changes = self.changes()
        content = {name: value if name == "payload" else str(value) for name, value in changes.items()}
        common = {"tenant_id": install.tenant_id, "install_id": install.id}
        return {**common, "operation": _CREATE, "content": content}

    def _find_conflict(self) -> Conflict:
        """Both versions of every field that the two do not agree on, in the form's words."""
        theirs = queries.find_schedule(
            tenant_id=self.instance.tenant_id, install_id=self.instance.install_id, schedule_id=self.instance.pk
        )
        rows = [ConflictRow("Endpoint", str(self.cleaned_data["endpoint"]), _endpoint_text(theirs))]
        for name in (*SERVICE_MEMBERS, *sorted(policies.MEMBERS & self.cleaned_data.keys())):
            mine = self.cleaned_data[name]
            if name == "timezone":
                mine = mine or self.instance.install.tenant.timezone  # what an empty one is saved as
            label = str(self.fields[name].label or name.replace("_", " ").capitalize())
            rows.append(ConflictRow(label, _as_text(name, mine), _as_text(name, getattr(theirs, name))))
        trail = AuditEvent.objects.filter(tenant_id=theirs.tenant_id, subject_id=theirs.id, action__in=_CHANGES)
        saved = trail.order_by("-at", "-id").defer("before", "after").first()
        return Conflict(theirs.revision, [row for row in rows if row.mine != row.theirs], saved)

    def _post_clean(self) -> None:
        """Leave the row alone: the service sets and validates it."""


def _endpoint_text(schedule: Schedule) -> str:
    return f"{schedule.endpoint_method} {schedule.endpoint_path}"


def _as_text(name: str, value: Any) -> str:
    if value is None or value == "":
        return "\N{EN DASH}"
    if name in POLICY_CHOICES:
        return dict(POLICY_CHOICES[name]).get(value, str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _form_field(member: str, fields: Any) -> str | None:
    """The form's field for a member of the service's input; None puts the message above the form."""
    name = "endpoint" if member == "endpoint_id" else member
    return name if name in fields else None
