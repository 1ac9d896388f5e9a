"""What operators call from the command line."""

import io
import uuid

import pytest
from django.core.management import CommandError, call_command

from schedules.models import ApiKey, AuditEvent
from tests.support.fake_runner import answers


def run(*arguments, **options):
    out = io.StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def test_any_endpoint_of_the_manifest_can_be_called_once(world, fake_runner):
    path = f"{world.path}/items/42"
    fake_runner.script(path, answers(200, body={"deleted": 42}))

    said = run("invoke_endpoint", str(world.install_id), f"DELETE {path}")

    assert said == 'status 200\n{"deleted": 42}\n'
    (call,) = fake_runner.calls[path]
    assert call.body["http"]["method"] == "DELETE"
    assert call.context["install_id"] == str(world.install_id)
    assert AuditEvent.objects.filter(tenant_id=world.tenant_id, action="endpoint.invoked").count() == 1


def test_an_endpoint_that_is_not_schedulable_can_be_called_too(world, fake_runner):
    run("invoke_endpoint", str(world.install_id), f"POST {world.path}/setup", payload='{"a": 1}')

    assert fake_runner.calls[f"{world.path}/setup"][0].payload == {"a": 1}


def test_a_failed_call_is_told_with_what_came_back(world, fake_runner):
    fake_runner.script(f"{world.path}/setup", answers(500, error="no disk"))

    with pytest.raises(CommandError, match="The extension answered 500: no disk"):
        run("invoke_endpoint", str(world.install_id), f"POST {world.path}/setup")


@pytest.mark.parametrize(
    ("install", "endpoint", "payload", "message"),
    [
        ("nonsense", "POST {path}", None, "There is no install"),
        ("7d3c6f1e-5b7a-4c8e-9a43-0f4f3c1c5d2b", "POST {path}", None, "There is no install"),
        (None, "POST /nowhere", None, "Endpoint not found"),
        (None, "BREW {path}", None, "Endpoint not found"),
        (None, "{path}/both", None, "ambiguous"),
        (None, "POST {path}", "{", "not JSON"),
        (None, "POST {path}", "[" * 60_000, "not JSON"),
        (None, "POST {path}", "5", "object or array"),
    ],
)
def test_bad_arguments_are_told(world, install, endpoint, payload, message):
    with pytest.raises(CommandError, match=message):
        run("invoke_endpoint", install or str(world.install_id), endpoint.format(path=world.path), payload=payload)


def test_an_api_key_is_made_and_shown_once(world):
    text = run("create_api_key", str(world.tenant_id), "CI", role="administrator").strip()

    world.api("GET", "schedules", key=text, expect=200)
    assert ApiKey.objects.get(tenant_id=world.tenant_id, name="CI").role == "administrator"
    for tenant in ("nonsense", str(uuid.uuid4())):
        with pytest.raises(CommandError, match="There is no tenant"):
            run("create_api_key", tenant, "CI")
    run("create_api_key", str(world.tenant_id), "Short", expires="2100-01-01T00:00:00+01:00")
    assert (
        ApiKey.objects.get(tenant_id=world.tenant_id, name="Short").expires_at.isoformat().startswith("2099-12-31T23")
    )
    for moment, problem in (("tomorrow", "is no time"), ("2001-01-01T00:00:00Z", "in the future")):
        with pytest.raises(CommandError, match=problem):
            run("create_api_key", str(world.tenant_id), "Late", expires=moment)
    with pytest.raises(CommandError, match="1 to 128 characters"):
        run("create_api_key", str(world.tenant_id), "x" * 129)
