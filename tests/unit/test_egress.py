"""Which addresses a tenant can have called."""

import ipaddress

import httpx
import pytest

from schedules import egress


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/hook",
        "http://127.1/hook",
        "http://2130706433/hook",
        "http://0x7f000001/hook",
        "http://localhost:8080/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://172.16.5.5/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://0x7f.1/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[::7f00:1]/",
        "http://[::ffff:0:7f00:1]/",
        "http://[fec0::1]/",
        "http://[2001:0:7f00:1::]/",
        "http://a..b/",
        "http://" + "x" * 70 + ".example/",
    ],
)
def test_nothing_inside_is_reached(url):
    with pytest.raises((egress.AddressRefused, OSError)):
        egress.check(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("https://user:secret@example.com/", "user name"),
        ("https://[::1", "not a URL"),
        ("https://example.com:0/", "https://"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com/" + "x" * 1024, "characters"),
        ("http://10.0.0.1/", "private"),
        ("http://127.1:8080/x", "private"),
        ("http://2130706433/", "private"),
        ("http://localhost:8080/hook", "private"),
        ("http://api.localhost./hook", "private"),
    ],
)
def test_a_wrong_address_is_refused_by_its_text(url, problem):
    assert problem in egress.problem_with_url(url)


def test_a_public_address_is_fine_by_its_text():
    assert egress.problem_with_url("https://hooks.example.com/a?b=c") == ""
    assert egress.problem_with_url("https://203.0.113.9/") != ""  # documentation addresses lead nowhere


def test_an_operator_can_allow_a_network(settings):
    settings.NOTIFICATION_ALLOWED_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"),)

    target = egress.check("http://127.0.0.1:81/h")

    assert target.ip == "127.0.0.1"
    with pytest.raises(egress.AddressRefused):
        egress.check("http://10.0.0.1/")


def test_the_request_goes_to_the_address_that_was_checked():
    target = egress.Target(httpx.URL("https://hooks.example.com:8443/a?b=c"), "93.184.216.34")

    request = target.request(httpx.AsyncClient(), content=b"{}", headers={})

    assert str(request.url) == "https://93.184.216.34:8443/a?b=c"
    assert request.headers["host"] == "hooks.example.com:8443"
    assert request.extensions["sni_hostname"] == "hooks.example.com"
