"""Users who are signed in to the admin."""

import uuid

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from schedules.models import TenantMembership


def signed_in(world=None, *, role=None, superuser=False):
    user = get_user_model().objects.create_user(
        f"user-{uuid.uuid4().hex[:12]}", password="x", is_staff=True, is_superuser=superuser
    )
    if world is not None:
        TenantMembership.objects.create(tenant_id=world.tenant_id, user=user, role=role)
    client = Client()
    client.force_login(user)
    client.user = user
    return client


def page(client, name, *arguments, **data):
    return client.get(reverse(f"admin:schedules_{name}", args=arguments), data)
