"""The login: whose address counts, which wrong passwords close what, and where it leads."""

import uuid

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory

from schedules import sign_in
from tests.support.people import signed_in

PASSWORD = "correct horse battery staple"
PROXY = "10.9.8.7"


@pytest.fixture
def member(database):
    name = f"member-{uuid.uuid4().hex[:8]}"
    return get_user_model().objects.create_user(name, password=PASSWORD, is_staff=True)


@pytest.fixture
def address():
    """A client's address that no other test has."""
    return f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1"


def log_in(name, password, *, remote=PROXY, forwarded="", **data):
    data = {"username": name, "password": password, **data}
    return Client().post("/admin/login/", data, REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)


def test_somebody_elses_wrong_passwords_do_not_close_a_login_behind_a_proxy(member, address, settings):
    settings.TRUSTED_PROXIES = 1
    # What the client itself writes into the header stands further left, and helps it nothing.
    codes = [log_in(member.username, "wrong", forwarded=f"203.0.113.{n}, {address}").status_code for n in range(6)]

    assert codes == [200] * 4 + [429] * 2
    assert log_in(member.username, PASSWORD, forwarded=f"203.0.113.1, {address}").status_code == 429
    assert log_in(member.username, PASSWORD, forwarded="198.51.100.1").status_code == 302


@pytest.mark.parametrize(
    ("proxies", "forwarded", "remote", "expected"),
    [
        (0, "203.0.113.1", "192.0.2.1", "192.0.2.1"),
        (1, "198.51.100.1, 203.0.113.1", "10.0.0.1", "203.0.113.1"),
        (2, "198.51.100.1, 203.0.113.1,10.0.0.2", "10.0.0.1", "203.0.113.1"),
        (2, "203.0.113.1", "10.0.0.1", "10.0.0.1"),
        (1, "", "10.0.0.1", "10.0.0.1"),
        (1, "unknown", "10.0.0.1", "10.0.0.1"),
        (1, "203.0.113.1:4711", "10.0.0.1", "203.0.113.1"),
        (1, "[2001:db8:1:2:3::4]:4711", "10.0.0.1", "2001:db8:1:2::"),
        (1, "::ffff:203.0.113.1", "10.0.0.1", "203.0.113.1"),
        (1, "fe80::1%eth0", "10.0.0.1", "fe80::"),
        (0, "", "", None),
    ],
)
def test_the_address_is_what_the_outermost_proxy_of_ours_saw(settings, proxies, forwarded, remote, expected):
    settings.TRUSTED_PROXIES = proxies
    request = RequestFactory().get("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)
    assert sign_in.client_address(request) == expected


@pytest.mark.parametrize("knows", [True, False])
def test_an_address_that_is_wrong_with_many_names_is_closed_for_all(member, address, settings, knows):
    settings.KNOWS_CLIENT_ADDRESSES = knows
    seen = str(sign_in.client_address(RequestFactory().get("/", REMOTE_ADDR=address)))
    AccessAttempt.objects.bulk_create(
        AccessAttempt(username=f"name-{number}", ip_address=seen, user_agent="x", failures_since_start=4)
        for number in range(13)
    )

    assert log_in(member.username, PASSWORD, remote=address).status_code == (429 if knows else 302)
    assert log_in(member.username, PASSWORD, remote="192.0.2.99").status_code == 302


def test_a_name_that_nobody_can_have_is_refused_like_any_other(database, address):
    refused = log_in("x" * 5000, "wrong", remote=address)
    assert refused.status_code == 200
    assert "Please enter the correct username and password" in refused.content.decode()


@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example", "/\\evil.example", "\x00"])
def test_a_login_leads_into_the_admin_and_nowhere_else(member, address, elsewhere):
    answer = log_in(member.username, PASSWORD, remote=address, next=elsewhere)
    assert (answer.status_code, answer.url) == (302, "/admin/")


def test_the_old_password_is_not_guessed_more_often_than_at_the_login(database, address):
    client = signed_in(superuser=True)
    client.user.set_password(PASSWORD)
    client.user.save()
    client.force_login(client.user)
    new = {"new_password1": f"{PASSWORD} 2", "new_password2": f"{PASSWORD} 2"}

    def change(old):
        return client.post("/admin/password_change/", new | {"old_password": old}, REMOTE_ADDR=address)

    assert "entered incorrectly" in change("wrong").content.decode()
    assert change(PASSWORD).status_code == 302
    codes = [change("wrong").status_code for _ in range(6)]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert change(f"{PASSWORD} 2").status_code == 429
