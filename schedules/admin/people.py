"""For operators: who may sign in, and who works in which tenant."""

from __future__ import annotations

from typing import Any, ClassVar

import django.contrib.auth.admin  # noqa: F401 - registers its own pages first, or it would refuse to after ours
from django import forms
from django.contrib import admin
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.models import Group, User
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from schedules import memberships, queries
from schedules.admin import display
from schedules.admin.base import OperatorAdmin, actor_of
from schedules.admin.written import ServiceAdmin, ServiceForm
from schedules.models import Role, TenantMembership

# The stock pages write past the services, and offer groups and permissions, by which nothing goes here.
admin.site.unregister([User, Group])


class PeopleAdmin(ServiceAdmin, OperatorAdmin):
    """What operators add, change and remove."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Operators do."""
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators do."""
        return self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators do."""
        return self.has_module_permission(request)


class UserForm(ServiceForm):
    """A user. A password is set here, and never shown."""

    field_names: ClassVar = {"password": "new_password"}
    new_password = forms.CharField(
        label="New password",
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Twelve characters or more. Empty leaves it as it is.",
    )
    new_password_again = forms.CharField(
        label="New password again",
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    class Meta:
        model = User
        fields = ("username", "first_name", "last_name", "email", "is_active", "is_superuser")
        labels = {"is_superuser": "Operator"}
        help_texts = {
            "username": "Letters, digits and @/./+/-/_ only.",
            "is_active": "Without it nobody signs in by this name. Take it away rather than delete the user.",
            "is_superuser": "Sees and changes every tenant, and the operators' pages.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_new:
            password = self.fields["new_password"]
            password.required, password.help_text = True, "Twelve characters or more."

    def clean_new_password_again(self) -> str:
        """What is typed unseen is typed twice."""
        again: str = self.cleaned_data["new_password_again"]
        if "new_password" in self.cleaned_data and again != self.cleaned_data["new_password"]:
            raise forms.ValidationError("This is not what stands above")
        return again

    def write(self, cleaned: dict[str, Any]) -> User:
        """Create or change the user."""
        # What is shown and not asked for stays as it is.
        given = {name: cleaned.get(name, getattr(self.instance, name)) for name in UserForm.Meta.fields}
        person, actor = memberships.Person(**given), actor_of(self.request)
        password = cleaned["new_password"]
        if self.is_new:
            return memberships.create_user(person, password=password, actor=actor)
        return memberships.update_user(self.instance.pk, person, password=password or None, actor=actor)


@admin.register(User)
class UserAdmin(PeopleAdmin):
    """Everybody who may sign in."""

    form = UserForm
    list_display = (
        "username",
        "full_name",
        "email",
        "works_in",
        "is_active",
        "is_operator",
        display.moment_column("last_login", "last login"),
    )
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username", "first_name", "last_name", "email")
    ordering = ("username",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """With the tenants."""
        tenants = TenantMembership.objects.select_related("tenant").order_by("tenant__name")
        return super().get_queryset(request).prefetch_related(Prefetch("tenant_memberships", queryset=tenants))

    def get_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """All that may be decided; what a user works in is decided on pages of its own."""
        asked = (*UserForm.Meta.fields, "new_password", "new_password_again")
        return asked if obj is None else (*asked, "tenants", "last_login", "date_joined")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Nobody takes away what they are about to work with."""
        if obj is None:
            return ()
        own = ("is_active", "is_superuser") if obj.pk == request.user.pk else ()
        return ("tenants", "last_login", "date_joined", *own)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody deletes themselves."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.pk != request.user.pk)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:  # noqa: FBT001
        """Whoever sets their own password stays signed in."""
        if obj.pk == request.user.pk and form.cleaned_data["new_password"]:
            update_session_auth_hash(request, obj)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """Delete through the service."""
        memberships.delete_user(obj.pk, actor=actor_of(request))

    @admin.display(description="name", ordering="last_name")
    def full_name(self, user: User) -> str:
        """What people call them."""
        return user.get_full_name()

    @admin.display(description="operator", boolean=True, ordering="is_superuser")
    def is_operator(self, user: User) -> bool:
        """Whether the user sees all tenants."""
        return user.is_superuser

    @admin.display(description="works in")
    def works_in(self, user: User) -> str:
        """The tenants, in a line."""
        return ", ".join(_in_words(each) for each in user.tenant_memberships.all()) or display.NOTHING

    @admin.display(description="works in")
    def tenants(self, user: User) -> str:
        """The tenants, each with its page, and the way to another."""
        rows = (
            (display.address("tenantmembership_change", one.id), _in_words(one))
            for one in user.tenant_memberships.all()
        )
        links = format_html_join(", ", '<a href="{}">{}</a>', rows)
        add = format_html('<a href="{}?user={}">Add to a tenant</a>', display.address("tenantmembership_add"), user.pk)
        return format_html("{}. {}", links, add) if links else add


def _in_words(membership: TenantMembership) -> str:
    suffix = "" if membership.is_active else ", not active"
    return f"{membership.tenant} ({membership.role}{suffix})"


class MembershipForm(ServiceForm):
    """Who works where, as what."""

    role = forms.ChoiceField(choices=Role.choices, help_text="A viewer looks, an administrator changes.")

    class Meta:
        model = TenantMembership
        fields = ("tenant", "user", "role", "is_active")

    def write(self, cleaned: dict[str, Any]) -> TenantMembership:
        """Add or change the member."""
        actor = actor_of(self.request)
        given = {"role": cleaned["role"], "is_active": cleaned["is_active"], "actor": actor}
        if self.is_new:
            return memberships.add_member(tenant_id=cleaned["tenant"].id, user_id=cleaned["user"].pk, **given)
        return memberships.change_member(tenant_id=self.instance.tenant_id, membership_id=self.instance.id, **given)


@admin.register(TenantMembership)
class TenantMembershipAdmin(PeopleAdmin):
    """Who works in which tenant."""

    form = MembershipForm
    empty_hint = "A user works in the tenants that an operator adds them to."
    list_display = ("user", "tenant", "role", "is_active", display.moment_column("created_at", "since"))
    list_filter = ("role", "is_active")
    search_fields = ("user__username", "tenant__name")
    list_select_related = ("user", "tenant")
    fields = ("tenant", "user", "role", "is_active")

    def get_readonly_fields(self, request: HttpRequest, obj: TenantMembership | None = None) -> Any:
        """A membership is of one user in one tenant."""
        return () if obj is None else ("tenant", "user")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Whom and where, which links may name, and nothing else."""
        tenant, user = queries.parse_uuid(request.GET.get("tenant", "")), request.GET.get("user", "")
        named = {"tenant": tenant, "user": user if user.isascii() and user.isdecimal() and len(user) < 10 else None}
        return {name: value for name, value in named.items() if value is not None}

    def delete_model(self, request: HttpRequest, obj: TenantMembership) -> None:
        """Remove through the service."""
        memberships.remove_member(tenant_id=obj.tenant_id, membership_id=obj.id, actor=actor_of(request))
