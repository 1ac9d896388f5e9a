"""The people of the tests of the admin."""

import pytest

from schedules.models import Role
from tests.support.people import signed_in


@pytest.fixture
def operator(database):
    return signed_in(superuser=True)


@pytest.fixture
def administrator(world):
    return signed_in(world, role=Role.ADMINISTRATOR)


@pytest.fixture
def viewer(world):
    return signed_in(world, role=Role.VIEWER)
