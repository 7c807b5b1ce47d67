"""What a visitor does on the page to talk."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.server import YapServer


def enter(page: Page, key: str) -> None:
    page.goto("/")
    page.fill("[name=key]", key)
    page.click("#key button")


def talk(context: BrowserContext, server: YapServer, *scripts: str) -> Page:
    """Open the page with the server's key; the scripts run before the page's own."""
    page = context.new_page()
    for script in scripts:
        page.add_init_script(script)
    enter(page, server.api_key)
    expect(page.locator("#talk")).to_be_visible()
    return page


def say(page: Page, text: str) -> None:
    page.fill("[name=utterance]", text)
    page.press("[name=utterance]", "Enter")


def replies(page: Page) -> Locator:
    return page.locator("[data-line=reply]")


def ended(page: Page, number: int, how: str = "done") -> str:
    """Wait for the end of a reply; returns its text."""
    reply = replies(page).nth(number)
    expect(reply).to_have_attribute("data-ended", how, timeout=60_000)
    return reply.locator(".bubble").inner_text()
