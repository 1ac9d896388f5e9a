"""Composition of the Django project: settings, URLs and the WSGI entry point. No logic lives here."""
