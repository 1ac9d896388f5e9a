"""Signing in: whose address a request comes from, and when there were too many wrong passwords.

django-axes counts by the pair of name and address. By the name alone, anybody could lock an administrator out; behind a
proxy whose address is everybody's, the pair is no more than the name, hence `client_address`.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.db.models import Sum
from django.http import HttpRequest

# Wrong passwords from one address, whatever the names: far more than an office behind one address gets wrong in the
# same quarter of an hour, far fewer than guessing takes.
MAX_FAILURES_OF_AN_ADDRESS: Final = 50
# What a provider gives to one customer, who can choose a new address in it for each request.
_IPV6_CUSTOMER_BITS: Final = 64


def client_address(request: HttpRequest) -> str | None:
    """The address that the request comes from, as the outermost of our own proxies saw it.

    Each proxy adds who spoke to it at the right end of X-Forwarded-For; what stands further left was written by the
    client and says nothing. A request that came past the proxies, or with no address, counts as who spoke to us.
    """
    proxies: int = settings.TRUSTED_PROXIES
    seen = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    forwarded = _parsed(seen[-proxies]) if 0 < proxies <= len(seen) else None
    return forwarded or _parsed(request.META.get("REMOTE_ADDR", ""))


def _parsed(text: str) -> str | None:
    """An address without the port that some proxies write behind it; of IPv6 the customer's network."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_CUSTOMER_BITS), strict=False).network_address)


class Throttle(AxesDatabaseHandler):  # type: ignore[misc]  # axes has no types
    """Axes' counter with a second, coarser one: of an address over all names."""

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        """How many wrong passwords count against the request; the limit itself where its address has too many."""
        of_pair = int(super().get_failures(request, credentials))
        if request.axes_ip_address is None or not settings.KNOWS_CLIENT_ADDRESSES:
            return of_pair
        attempts = AccessAttempt.objects.filter(
            ip_address=request.axes_ip_address, attempt_time__gte=get_cool_off_threshold(request)
        )
        of_address = attempts.aggregate(total=Sum("failures_since_start"))["total"] or 0
        is_over = of_address >= MAX_FAILURES_OF_AN_ADDRESS
        return max(of_pair, settings.AXES_FAILURE_LIMIT) if is_over else of_pair


class SignInForm(AdminAuthenticationForm):
    """The login."""

    def clean(self) -> dict[str, Any]:
        """Refuse a name that nobody can have before it is counted anywhere."""
        longest = User._meta.get_field("username").max_length or 0  # noqa: SLF001 - documented
        if len(self.cleaned_data.get("username") or "") > longest:
            raise self.get_invalid_login_error()
        return super().clean()


class OwnPasswordForm(AdminPasswordChangeForm):
    """A new password of one's own, whose old one cannot be guessed any more often than at the login."""

    request: HttpRequest

    def clean_old_password(self) -> str:
        """Ask in the way of the login, which counts."""
        given: str = self.cleaned_data["old_password"]
        if authenticate(self.request, username=self.user.get_username(), password=given) is None:
            raise forms.ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return given
