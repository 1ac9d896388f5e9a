"""Reads JSON bodies, and refuses what JSON forbids or the stack cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class StrictJSONParser(JSONParser):
    """JSON as RFC 8259 has it: no NaN, no Infinity; a document too deep to read is bad input and not our bug."""

    strict = True

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the decoded body; raises ParseError."""
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - the document is nested too deeply") from None


class AnyTypeJSONParser(StrictJSONParser):
    """JSON, whatever the content type calls it."""

    media_type = "*/*"


class AnswersJSON(DefaultContentNegotiation):
    """Answers in JSON, whatever the caller says it accepts: there is nothing else to have."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The only one."""
        renderer: BaseRenderer = renderers[0]
        return renderer, renderer.media_type


class AlwaysJSON(AnswersJSON):
    """Reads JSON, too, whatever the caller calls it."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        """The only one."""
        parser: BaseParser = parsers[0]
        return parser
