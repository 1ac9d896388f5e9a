"""Writes the OpenAPI document to a file, or checks that a file holds it."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.validation import validate_schema

from schedules.api import schema


class Command(BaseCommand):
    """Write or check the copy of the document that people read beside the code."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The file, and what to do with it."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--check", action="store_true", help="change nothing, fail where the file differs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the document, refuse a doubtful one, then write or compare."""
        document = schema.document()
        if GENERATOR_STATS:
            raise CommandError("The document was made with warnings, see above")
        validate_schema(schema.as_object())  # type: ignore[no-untyped-call]
        file: Path = options["file"]
        if not options["check"]:
            file.write_bytes(document)
        elif not file.exists() or file.read_bytes() != document:
            raise CommandError(f"{file} is not the document of this code: run `make openapi` and commit what it writes")
