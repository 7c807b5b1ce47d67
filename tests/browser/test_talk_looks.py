"""The page to talk on a phone and in the dark: portraits, the list of characters, contrast, and how the log scrolls."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, WebSocketRoute, expect

from tests.browser.conftest import look
from tests.browser.talking import ended, replies, say, talk
from tests.operator import operator
from tests.personas import card_samples
from tests.server import YapServer

pytestmark = pytest.mark.browser

LONG_NAME = ("Wilhelmina " * 9).strip()
RIGHT_TO_LEFT = "مرحبا، من أنت؟\n" * 15 + "مرحبا"  # more than the window shows
TO_END = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"

# The texts whose contrast with what is behind them, as WCAG 2.2 defines it, is below 4.5. Canvases read the colours.
POOR = """
(elements) => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const read = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [red, green, blue] = read(colour).map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const background = (element) => getComputedStyle(element).backgroundColor;
  const contrast = (element) => {
    let behind = element;
    while (behind.parentElement && read(background(behind))[3] < 255) behind = behind.parentElement;
    const [low, high] = [getComputedStyle(element).color, background(behind)].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const poor = elements.filter((element) => element.checkVisibility() && contrast(element) < 4.5);
  return poor.map((element) => `${element.className} ${element.textContent} ${contrast(element)}`);
}
"""
TEXTS = ".bubble, .notes > span, #talk h1, .state, #personas strong, #personas small, .links > *, #talk header p"


@pytest.fixture
def portrayed(demo_chat_server: YapServer) -> str:
    """The slug of a character whose card has a picture."""
    card = card_samples.as_png(chara=card_samples.v2(name=LONG_NAME))
    with operator(demo_chat_server) as someone:
        fields = {"gender": "female", "personality": "calm"}
        someone.post("/admin/personas/persona/import-card/", files={"file": ("card.png", card)}, **fields)
    listed = httpx.get(f"{demo_chat_server.origin}/api/v1/personas/", headers={"X-API-Key": demo_chat_server.api_key})
    return str(next(persona["slug"] for persona in listed.json() if persona["name"] == LONG_NAME))


def test_a_phone_in_the_dark(chromium: Browser, demo_chat_server: YapServer, portrayed: str) -> None:
    phone = chromium.new_context(
        base_url=demo_chat_server.origin, viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True
    )
    phone.set_default_timeout(60_000)
    expect.set_options(timeout=30_000)
    page = talk(phone, demo_chat_server)
    side = page.locator("#side")
    expect(side).not_to_be_in_viewport()
    page.get_by_role("button", name="Characters", exact=True).tap()
    expect(side).to_be_in_viewport()
    row = page.locator(f"[data-persona={portrayed}]")
    expect(row.locator("img")).to_be_visible()
    assert row.locator("img").evaluate("(image) => image.naturalWidth > 0")
    page.keyboard.press("Escape")
    expect(side).not_to_be_in_viewport()
    expect(page.get_by_role("button", name="Characters", exact=True)).to_be_focused()
    page.get_by_role("button", name="Characters", exact=True).tap()
    row.tap()
    expect(side).not_to_be_in_viewport()
    expect(page.locator("#talk [data-show=avatar] img")).to_be_visible()
    expect(page.locator(".empty .avatar img")).to_be_visible()
    look(page, "8-talk-portrait")
    page.emulate_media(color_scheme="dark")

    page.set_viewport_size({"width": 390, "height": 480})
    say(page, RIGHT_TO_LEFT)
    ended(page, 0)
    page.locator("#log").evaluate("(log) => { log.scrollTop = 0; }")
    say(page, "Tell me a long story.")
    expect(replies(page).nth(1).locator(".bubble")).to_contain_text(re.compile(r"\S"))
    page.keyboard.press("Escape")
    expect(replies(page).nth(1)).to_have_attribute("data-ended", re.compile("."))
    assert page.locator("#log").evaluate(TO_END) < 2
    page.get_by_role("button", name="Characters", exact=True).tap()
    backgrounds = set()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        backgrounds.add(page.evaluate(BACKGROUND))
        assert page.locator(TEXTS).evaluate_all(POOR) == [], scheme
    assert len(backgrounds) == 2
    phone.close()


def test_a_message_does_not_wait_for_the_servers_estimate(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    refused = 0

    def refuse_once(line: WebSocketRoute) -> None:
        nonlocal refused
        refused += 1
        if refused > 1:
            line.connect_to_server()
            return
        line.send('{"type":"error","error_code":"server_not_ready","message":"not ready","retry_in":600}')
        line.close(code=1013)

    visitor.route_web_socket("**/ws", refuse_once)
    page = talk(visitor, demo_chat_server)
    say(page, "Hello!")
    expect(page.locator("[data-show=notice]")).to_have_text("The engines are not ready yet. Trying again…")
    say(page, "Are you there?")
    assert ended(page, 1)
    expect(replies(page)).to_have_count(2)
    expect(page.locator("[data-show=notice]")).to_have_text("")
