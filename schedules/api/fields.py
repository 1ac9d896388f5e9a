"""Members of JSON requests, strict about types: nothing is converted that the caller might have meant otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from django.http import QueryDict
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from schedules import payloads


class TextField(serializers.CharField):
    """A JSON string, and nothing that could be turned into one."""

    def to_internal_value(self, data: Any) -> str:
        """Refuse other types instead of converting them."""
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a text")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """A JSON boolean, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> bool:
        """Refuse other types instead of converting them."""
        if not isinstance(data, bool):
            raise serializers.ValidationError("must be true or false")
        return data


class CountField(serializers.IntegerField):
    """A JSON integer, and nothing that could be read as one. JSON knows no other kind of number: 1.0 is 1."""

    def to_internal_value(self, data: Any) -> int:
        """Refuse other types instead of converting them."""
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("must be a whole number")
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """A JSON number, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> float:
        """Refuse other types instead of converting them."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("must be a number")
        try:
            return super().to_internal_value(data)
        except OverflowError:
            raise serializers.ValidationError("must be a number of ordinary size") from None


# The way that RFC 9562 writes one, section 4.
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


class IdField(serializers.UUIDField):
    """A UUID, written with its hyphens."""

    def to_internal_value(self, data: Any) -> UUID:
        """Refuse other spellings instead of converting them."""
        if not isinstance(data, str) or not _UUID.fullmatch(data):
            raise serializers.ValidationError("must be a UUID")
        return UUID(data)


@extend_schema_field(OpenApiTypes.DATETIME)
class MomentField(serializers.Field[datetime, str, str, Any]):
    """A time as RFC 3339 has it, with its offset from UTC."""

    def to_internal_value(self, data: Any) -> datetime:
        """Refuse what is no time, or none that can be told in UTC."""
        moment = payloads.parse_moment(data) if isinstance(data, str) else None
        if moment is not None:
            return moment
        raise serializers.ValidationError("must be a time such as 2026-03-29T01:00:00Z")

    def to_representation(self, value: datetime) -> str:
        """As it is shown everywhere."""
        return payloads.moment_text(value)


@extend_schema_field({})
class StoredJSONField(serializers.JSONField):
    """Any JSON value that can be stored."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuse what the database or the wire cannot hold."""
        if problem := payloads.problem_with_json(data):
            raise serializers.ValidationError(problem)
        return data


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ObjectField(StoredJSONField):
    """A JSON object that can be stored."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuse other types."""
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object")
        return super().to_internal_value(data)


@extend_schema_field({"type": ["object", "array"], "items": {}, "additionalProperties": {}})
class PayloadField(serializers.JSONField):
    """A schedule's payload; its rules are the services'."""


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members it does not know: a misspelt one would otherwise be lost without a word."""

    # What the OpenAPI document says beyond the types: rules that are checked elsewhere, and an example.
    document: ClassVar[Mapping[str, Any]] = {}
    example: ClassVar[Mapping[str, Any] | None] = None

    default_error_messages = {
        "invalid": "must be a JSON object",
        "null": "must be a JSON object",
        "unknown": "is not a member of this request",
    }

    def to_internal_value(self, data: Any) -> Any:
        """Check for unknown members before the known ones."""
        if isinstance(data, Mapping):
            unknown = sorted(ascii(name)[1:65].rstrip("'") for name in set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({name: [self.error_messages["unknown"]] for name in unknown})
        return super().to_internal_value(data)


class FlagParameter(serializers.BooleanField):
    """A boolean in an address: ``true`` or ``false``."""

    def to_internal_value(self, data: Any) -> bool:
        """Refuse everything else that the framework would read as one."""
        if data not in {"true", "false"}:
            raise serializers.ValidationError("must be true or false")
        return bool(data == "true")


class CountParameter(serializers.IntegerField):
    """A whole number in an address, in decimal digits."""

    def to_internal_value(self, data: Any) -> int:
        """Refuse everything else that Python would read as one."""
        if not re.fullmatch(r"-?[0-9]{1,18}", str(data), re.ASCII):
            raise serializers.ValidationError("must be a whole number")
        return super().to_internal_value(data)


class Query(StrictSerializer):
    """The parameters of an address. A misspelt filter would otherwise show everything as if it matched."""

    default_error_messages = {"unknown": "is not a parameter of this address"}

    @classmethod
    def read(cls, parameters: QueryDict) -> dict[str, Any]:
        """The checked parameters; raises ValidationError. Of one that repeats, the last counts."""
        lists = {name for name, field in cls().fields.items() if isinstance(field, serializers.MultipleChoiceField)}
        given = {name: parameters.getlist(name) if name in lists else parameters[name] for name in parameters}
        query = cls(data=given)
        query.is_valid(raise_exception=True)
        return dict(query.validated_data)
