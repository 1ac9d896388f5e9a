"""Forms whose writes are a service's: it decides, and its refusals stand at the fields."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from schedules.admin.base import TenantScopedAdmin, is_superuser
from schedules.errors import SchedulingError


class ServiceForm(forms.ModelForm[Any]):
    """Writes in `clean`, where every refusal of the service can stand at its field; `save` has nothing left to do."""

    request: HttpRequest
    # What a service calls otherwise than the form does.
    field_names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if isinstance(field.widget, RelatedFieldWidgetWrapper):
                # Buttons that would open other forms in windows of their own.
                field.widget.can_add_related = field.widget.can_change_related = False
                field.widget.can_delete_related = field.widget.can_view_related = False
                if is_superuser(self.request.user):
                    # All tenants, or all users: too many to look through.
                    field.widget.widget.attrs["data-combobox"] = ""

    @property
    def is_new(self) -> bool:
        """Whether nothing has been written yet."""
        return bool(self.instance._state.adding)  # noqa: SLF001 - documented at Model._state

    def clean(self) -> dict[str, Any]:
        """Write through the service once the input has its shape."""
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        try:
            self.instance = self.write(cleaned)
        except SchedulingError as error:
            for told, message in error.fields.items():
                name = self.field_names.get(told, told)
                self.add_error(name if name in self.fields else None, message)
            if not error.fields:
                raise forms.ValidationError(error.message) from error
        return cleaned

    @abstractmethod
    def write(self, cleaned: dict[str, Any]) -> Any:
        """Do it; returns the row."""

    def _post_clean(self) -> None:
        """Leave the row alone: the service has written it."""


class ServiceAdmin(TenantScopedAdmin):
    """Pages with such a form, and with nothing that goes past the services."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        """The form, which needs to know who asks."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"request": request})

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

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """The question and the deletion; a refusal of the service, e.g. where it is gone, is told above the list."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except SchedulingError as error:
            messages.error(request, error.message)
            return self.back_to_list()

    def back_to_list(self) -> HttpResponse:
        """To the list."""
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))
