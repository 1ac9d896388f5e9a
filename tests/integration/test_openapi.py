"""The OpenAPI document against the code: what it shows is what there is. What is answered is checked by generation."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from django.core.management import CommandError, call_command

from schedules import preview
from schedules.api import answers, host_shapes, schema, shapes, tenant_shapes
from schedules.models import ApiEndpoint, ApiKey, NotificationChannel, Schedule, ScheduleRun, Tenant

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SCHEDULE = Schedule(
    id=uuid.uuid4(),
    tenant_id=uuid.uuid4(),
    install_id=uuid.uuid4(),
    cron="0 4 * * *",
    timezone="UTC",
    created_at=NOW,
    updated_at=NOW,
    accounted_until=NOW,
)


def resolved(document, value):
    """The value with its references replaced."""
    if isinstance(value, dict):
        if "$ref" in value:
            found = document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return resolved(document, found)
        return {name: resolved(document, item) for name, item in value.items()}
    return [resolved(document, item) for item in value] if isinstance(value, list) else value


def examples(document):
    for address, methods in document["paths"].items():
        for method, operation in methods.items():
            bodies = {"request": operation.get("requestBody", {})} | operation["responses"]
            for place, body in bodies.items():
                for content in resolved(document, body).get("content", {}).values():
                    for name, example in content.get("examples", {}).items():
                        where = f"{method} {address} {place} {name}"
                        yield pytest.param(content["schema"], example["value"], id=where)


@pytest.mark.parametrize(("shape", "example"), list(examples(schema.as_object())))
def test_every_example_has_the_shape_it_is_shown_for(shape, example):
    jsonschema.Draft202012Validator(shape, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(
        example
    )


def test_every_operation_says_what_it_does_and_shows_an_example():
    document = schema.as_object()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert all(operation[member] for member in ("summary", "description", "tags", "security"))
            for parameter in operation.get("parameters", []):
                assert parameter.get("description") or parameter["in"] == "query", parameter
            for answer in resolved(document, list(operation["responses"].values())):
                assert answer["description"]
                assert all("examples" in content for content in answer.get("content", {}).values()), operation


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (answers.render_schedule(SCHEDULE, install_enabled=True, now=NOW), shapes.Schedule),
        (answers.render_host_schedule(SCHEDULE, install_enabled=True, now=NOW), host_shapes.ScheduleInfo),
        (answers.render_run(ScheduleRun(slot=NOW, created_at=NOW)), shapes.Run),
        (answers.render_run(ScheduleRun(slot=NOW, created_at=NOW), with_payload=True), shapes.RunWithPayload),
        (answers.render_endpoint(ApiEndpoint()), shapes.Endpoint),
        (answers.render_tenant(Tenant()), tenant_shapes.Tenant),
        (answers.render_channel(NotificationChannel(created_at=NOW)), tenant_shapes.NotificationChannel),
        (answers.render_api_key(ApiKey(created_at=NOW)), tenant_shapes.ApiKey),
        (
            answers.render_preview(preview.preview(text="0 4 * * *", zone_name="UTC", after=NOW)),
            shapes.Preview,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answers_have_the_members_of_their_shapes(answer, shape):
    assert set(answer) == set(shape().fields)


def test_the_committed_copy_is_the_document():
    assert COMMITTED.read_bytes() == schema.document()
    call_command("openapi", str(COMMITTED), check=True)


def test_a_copy_that_differs_is_told(tmp_path):
    other = tmp_path / "openapi.json"
    with pytest.raises(CommandError, match="make openapi"):
        call_command("openapi", str(other), check=True)
    assert not other.exists()
    call_command("openapi", str(other))
    assert json.loads(other.read_bytes())["openapi"].startswith("3.1")


def test_the_document_and_its_page_are_served(client):
    served = client.get("/api/schema/")
    assert served["Content-Type"] == "application/vnd.oai.openapi+json"
    assert served.content == COMMITTED.read_bytes()

    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert b"<script>" not in page.content  # a strict Content-Security-Policy would not run it
    assert b"swagger-ui" in page.content
    assert client.get("/api/docs/?script=").status_code == 200
