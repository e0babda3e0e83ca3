"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.serving import Server

# Root needs the first, containers the second; the rest keeps it from calling home.
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--disable-component-update",
         "--disable-background-networking")  # fmt: skip


@contextmanager
def browsing() -> Iterator[Browser]:
    """One browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[dev]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page, and what it should not have: `complaints` of the console, and `strangers`, requests to other hosts."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    strangers: list[str] = field(default_factory=list[str])


@contextmanager
def visiting(browser: Browser, server: Server, *, viewport: Any = None, **options: Any) -> Iterator[Visit]:
    """The page in a window of its own, without cookies of others."""
    context = browser.new_context(viewport=viewport or {"width": 1280, "height": 900}, locale="en-GB", **options)
    visit = Visit(context.new_page())
    visit.page.on(
        "console", lambda said: visit.complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "request", lambda one: None if one.url.startswith(server.url + "/") else visit.strangers.append(one.url)
    )
    try:
        visit.page.goto(server.url + "/")
        yield visit
    finally:
        context.close()
