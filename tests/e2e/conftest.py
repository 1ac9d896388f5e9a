"""The stage and the browser of the tests that look at pages."""

import tempfile
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.support import browsing
from tests.support.stage import Stage


@pytest.fixture(scope="session")
def stage(database_url):
    with (
        tempfile.TemporaryDirectory(prefix="scheduler-stage-", ignore_cleanup_errors=True) as directory,
        Stage(database_url, Path(directory)) as platform,
    ):
        yield platform


@pytest.fixture(scope="module")
def visit(stage):
    """Opens a page as somebody: ``visit("anna", "/admin/")``; what is wrong there is told by `Visitor.look`."""
    # Not for the whole session: as long as it runs, this thread has an event loop, and others want to start their own.
    with sync_playwright() as playwright:
        browser = browsing.launch(playwright)
        contexts = {}

        def open_page(who, address="/admin/", *, expect=200, narrow=False):
            if who not in contexts:
                contexts[who] = browsing.context(browser, stage, who)
            page = contexts[who].new_page()
            page.set_viewport_size({"width": 390, "height": 844} if narrow else {"width": 1440, "height": 900})
            return browsing.Visitor(stage, page).open(address, expect=expect)

        yield open_page
        browser.close()
