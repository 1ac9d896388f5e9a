"""A real browser, and a visitor in it who notices what a person may not: console errors, violations, faults."""

import os
from pathlib import Path

import axe_playwright_python

from tests.support.stage import PASSWORD, chromium

AXE = (Path(axe_playwright_python.__path__[0]) / "axe.min.js").read_text()
GRAVE = {"serious", "critical"}
# Preloading would let axe itself write inline styles, for style sheets that import others. A script that is evaluated
# has no time limit of its own.
LOOK = """
Promise.race([
    axe.run(document, {resultTypes: ['violations'], preload: false}),
    new Promise((_, refuse) => setTimeout(() => refuse(new Error('axe is not done after 30 seconds')), 30000)),
])
"""


def launch(playwright):
    # Root has no sandbox to put it in.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=chromium(), args=arguments)


def context(browser, stage, who=None, **options):
    """A browser of somebody's own, signed in unless ``who`` is None."""
    made = browser.new_context(timezone_id="Asia/Tokyo", locale="en-GB", reduced_motion="reduce", **options)
    made.set_default_timeout(15_000)
    if who is not None:
        page = sign_in(made.new_page(), stage, who)
        # A page that is closed while it goes to another one may never say that it is closed.
        page.wait_for_url(f"{stage.url}/admin/", wait_until="networkidle")
        page.close()
    return made


def sign_in(page, stage, who, password=PASSWORD):
    page.goto(f"{stage.url}/admin/login/")
    page.get_by_label("Username").fill(who)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    return page


class Visitor:
    """Somebody at a page, with a note of everything that went wrong there."""

    def __init__(self, stage, page):
        self.stage, self.page = stage, page
        self.faults = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("requestfailed", self._failed)

    def _console(self, message):
        if message.type in {"error", "warning"}:
            self.faults.append(f"console on {self.page.url}: {message.text}")

    def _failed(self, request):
        # A page that is left takes its requests with it.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request: {request.url}: {request.failure}")

    def open(self, address, *, expect=200):
        answer = self.page.goto(self.stage.url + address)
        assert answer.status == expect, f"{address}: {answer.status}"
        if expect >= 400:
            # Chromium writes the page's own status to the console.
            self.faults = [
                fault for fault in self.faults if f"the server responded with a status of {expect}" not in fault
            ]
        return self

    def look(self):
        """Nothing is wrong here: no error, no fault that axe calls serious, nothing beyond the screen's edge."""
        self.note()
        assert not self.faults, "\n".join(self.faults)
        return self

    def note(self):
        """Add what is wrong here to ``faults``."""
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate(AXE)
        found = self.page.evaluate(LOOK)
        for violation in found["violations"]:
            if violation["impact"] in GRAVE:
                nodes = "; ".join(node["html"][:150] for node in violation["nodes"][:4])
                self.faults.append(f"axe on {self.page.url}: {violation['id']}: {violation['help']}: {nodes}")
        width, seen = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if width > seen:
            self.faults.append(f"{self.page.url} is {width} px wide on a screen of {seen}")

    @property
    def text(self):
        return self.page.locator("body").inner_text()
