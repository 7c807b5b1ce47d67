"""Chromium on a server's admin, at two widths, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.operator import NAME, PASSWORD, make_operator
from tests.server import CHECKOUT, YapServer

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_SCREENSHOTS = CHECKOUT / ".run" / "screenshots"
_WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium without a screen. Module scope, because this thread has a running event loop meanwhile."""
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    assert path, "Chromium is missing"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, demo_chat_server: YapServer) -> Iterator[BrowserContext]:
    """A fresh browser context; a script error on any page fails the test."""
    make_operator(demo_chat_server)
    made = chromium.new_context(base_url=demo_chat_server.origin, viewport={"width": 1280, "height": 900})
    made.set_default_timeout(60_000)
    expect.set_options(timeout=20_000)
    wrong: list[str] = []
    made.on("weberror", lambda error: wrong.append(str(error.error)))
    yield made
    made.close()
    assert not wrong


@pytest.fixture
def visitor(chromium: Browser, demo_chat_server: YapServer) -> Iterator[BrowserContext]:
    """A browser that has never been here. A script error or a violation of the page's policy fails the test."""
    made = chromium.new_context(base_url=demo_chat_server.origin, viewport={"width": 1280, "height": 900})
    made.set_default_timeout(60_000)
    expect.set_options(timeout=30_000)
    wrong: list[str] = []
    made.on("weberror", lambda error: wrong.append(str(error.error)))
    made.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    yield made
    made.close()
    assert not wrong


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The dashboard after login."""
    made = context.new_page()
    made.goto("/admin/")
    made.fill("[name=username]", NAME)
    made.fill("[name=password]", PASSWORD)
    made.click("button[type=submit]")
    made.wait_for_selector("#dashboard")
    return made


def look(page: Page, name: str) -> None:
    """Take screenshots at both widths, light and dark, and check that no page is wider than its window."""
    _SCREENSHOTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = page.viewport_size
    for width, (across, down) in _WIDTHS.items():
        page.set_viewport_size({"width": across, "height": down})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            # Unfold reads the colour scheme at load time, and a page is not reloaded during a conversation.
            page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", scheme == "dark")
            page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            page.screenshot(path=_file(f"{name}-{width}-{scheme}"), full_page=True)
        wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], f"{name} is {wide[0]} pixels wide at {wide[1]}"
    page.emulate_media(color_scheme="light")
    page.evaluate("() => document.documentElement.classList.remove('dark')")
    if before:
        page.set_viewport_size(before)


def _file(name: str) -> Path:
    return _SCREENSHOTS / f"{name}.png"
