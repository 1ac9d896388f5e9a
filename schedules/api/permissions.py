"""Which callers a view answers at all; what they may do is decided per tenant in the view."""

from __future__ import annotations

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from schedules.models import ApiKey


class IsTenantCaller(BasePermission):
    """An API key, or a signed-in user."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether somebody stands behind the request."""
        return isinstance(request.auth, ApiKey) or bool(request.user and request.user.is_authenticated)
