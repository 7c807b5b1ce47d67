"""An operator's day in the browser, on a running server: key, persona, conversation, ban, limit, leaked key."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import look
from tests.operator import PASSWORD, make_operator
from tests.server import YapServer

pytestmark = pytest.mark.browser

# A story of a hundred English words contains these two letters many times.
BANNED = "er"
CONNECT = """
([key, slug]) => new Promise((opened, failed) => {
  window.frames_ = [];
  window.closed_ = null;
  window.line_ = new WebSocket(`ws://${location.host}/ws`, ["yap.v1", `yap.key.${key}`]);
  window.line_.onmessage = ({ data }) => window.frames_.push(JSON.parse(data));
  window.line_.onclose = ({ code }) => { window.closed_ = code; };
  window.line_.onopen = opened;
  window.line_.onerror = failed;
  window.say_ = (text) => window.line_.send(JSON.stringify(
    { type: "start", session_id: "customer", persona: slug, user_utterance: text }));
})
"""

# Runs in the page: on a busy machine a reply may end before a click from the test arrives. The observer sees each
# change of the text, which a timer may miss.
INTERRUPT = """
([number, words]) => new Promise((done) => {
  const heard = [];
  const look = () => {
    const reply = document.querySelectorAll("[data-line=reply]")[number];
    const text = reply ? reply.firstChild.textContent : "";
    if (text && text !== heard.at(-1)) heard.push(text);
    const ended = reply && reply.dataset.ended;
    if (!ended && (heard.length < 2 || text.length < 20)) return;
    observer.disconnect();
    const form = document.querySelector("#try form");
    if (words === null) document.querySelector("[data-do=stop]").click();
    else { form.elements.utterance.value = words; form.requestSubmit(); }
    done(heard);
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
})
"""


class Customer:
    """The user of a key: a blank page with a WebSocket, as any browser opens one."""

    def __init__(self, page: Page, key: str, slug: str) -> None:
        self.page = page
        page.evaluate(CONNECT, [key, slug])

    def say(self, text: str) -> None:
        """Send a message and wait for the frame that ends or refuses the turn."""
        seen = self.page.evaluate("window.frames_.length")
        self.page.evaluate("text => window.say_(text)", text)
        self.page.wait_for_function(
            "seen => window.frames_.slice(seen).some(f => f.type === 'done' || (f.type === 'error' && !f.turn))",
            arg=seen,
        )

    def last(self) -> dict[str, Any]:
        """Return the newest frame."""
        frame: dict[str, Any] = self.page.evaluate("window.frames_.at(-1)")
        return frame


def make_key(page: Page, name: str) -> str:
    """Create a key; returns it as shown once."""
    page.goto("/admin/accounts/apikey/add/")
    page.fill("[name=name]", name)
    page.fill("[name=own_password]", PASSWORD)
    page.click("[name=_save]")
    key = page.locator("code.api-key").inner_text()
    assert re.fullmatch(r"yap_[a-z0-9]{8}_[A-Za-z0-9]{43}", key)
    return key


def make_persona(page: Page, name: str) -> None:
    page.goto("/admin/personas/persona/add/")
    page.locator("[name=name]").press_sequentially(name)
    expect(page.locator("[name=slug]")).to_have_value(name.lower())
    page.select_option("[name=gender]", "female")
    page.fill("[name=personality]", "dry")
    page.fill("[name=chat_prompt]", f"You are {name}, who keeps a lighthouse and tells long stories.")
    expect(page.locator("[data-tokens-of=chat_prompt]")).to_contain_text(re.compile(r"[1-9]\d* of \d+ tokens"))
    page.click("[name=_save]")
    expect(listed(page, name)).to_be_visible()


def listed(page: Page, name: str) -> Locator:
    """Return the line of a list."""
    return page.locator("#result_list").get_by_role("link", name=name, exact=True)


def replies(page: Page) -> Locator:
    return page.locator("[data-line=reply]")


def say(page: Page, text: str) -> None:
    page.fill("[name=utterance]", text)
    page.press("[name=utterance]", "Enter")


def interrupt(page: Page, number: int, words: str | None) -> list[str]:
    """Send `words`, or press Stop, once this reply has begun; returns the text as it grew until then."""
    heard: list[str] = page.evaluate(INTERRUPT, [number, words])
    return heard


def whole_reply(page: Page, number: int) -> str:
    """Return the text of the reply with this number after its end."""
    reply = replies(page).nth(number)
    expect(reply).to_have_attribute("data-ended", "done", timeout=60_000)
    return reply.locator("div").inner_text()


def test_the_operators_day(page: Page, context: BrowserContext, demo_chat_server: YapServer) -> None:
    look(page, "1-dashboard-at-first")
    key = make_key(page, "A customer")
    page.goto("/admin/accounts/apikey/")
    expect(page.locator("body")).not_to_contain_text(key)
    make_persona(page, "Ottilie")

    # Try it: text streams, a second message while it speaks interrupts it.
    listed(page, "Ottilie").click()
    page.get_by_role("link", name="Try it").first.click()
    say(page, "Tell me a long story of the sea.")
    heard = interrupt(page, 0, "Wait! Tell me a long story of a lighthouse.")
    assert len(heard) > 1
    assert all(later.startswith(before) for before, later in itertools.pairwise(heard))
    expect(replies(page).nth(0)).to_have_attribute("data-ended", "cancelled")
    expect(replies(page).nth(0)).to_contain_text("interrupted")
    cut = replies(page).nth(0).locator("div").inner_text()
    assert whole_reply(page, 1)
    assert replies(page).nth(0).locator("div").inner_text() == cut
    expect(page.locator("[data-show=tool]")).to_have_text(re.compile("^(yes|no)"))
    expect(page.locator("[data-show=ttft]")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(page.locator("[data-show=rate]")).to_have_text(re.compile(r"^\d+\.\d$"))
    expect(page.locator("[data-show=suppressed]")).to_have_text("0")
    look(page, "2-try-it")

    # Stop.
    say(page, "Tell me a long story of the weather.")
    interrupt(page, 2, None)
    expect(replies(page).nth(2)).to_have_attribute("data-ended", "cancelled")
    expect(replies(page).nth(2)).to_contain_text("stopped")
    expect(page.locator("[data-show=state]")).to_have_text("listening")

    # Ban a phrase in another tab: the next turn of the open conversation obeys.
    desk = context.new_page()
    desk.goto("/admin/personas/phraselist/add/")
    desk.fill("[name=name]", "Never")
    desk.check("[name=is_global]")
    desk.fill("[name=phrases-0-text]", BANNED)
    desk.click("[name=_save]")
    expect(listed(desk, "Never")).to_be_visible()
    say(page, "Tell me another long story.")
    assert BANNED not in whole_reply(page, 3).lower()
    assert int(page.locator("[data-show=suppressed]").inner_text()) > 0
    look(page, "3-banned")
    listed(desk, "Never").click()
    desk.uncheck("[name=enabled]")
    desk.click("[name=_save]")
    again = []
    for number in range(4, 7):  # one reply may lack the phrase by chance, three allowed ones do not
        say(page, "Write: her mother, her sister, her brother.")
        again.append(whole_reply(page, number).lower())
        if BANNED in again[-1]:
            break
    assert BANNED in again[-1], again

    # A customer talks; a lowered limit applies to the next message.
    street = context.new_page()
    street.goto("/")  # a page whose policy lets it connect
    customer = Customer(street, key, "ottilie")
    customer.say("Hello?")
    assert customer.last()["type"] == "done"
    desk.goto("/admin/accounts/apikey/")
    listed(desk, "A customer").click()
    desk.fill("[name=max_messages]", "1")
    desk.click("[name=_save]")
    expect(desk.locator("[name=_save]")).to_have_count(0)
    customer.say("Hello again?")
    refusal = customer.last()
    assert refusal["error_code"] == "message_rate_limited"
    assert refusal["retry_in"] >= 1

    # The key has leaked: revoke it, and the connection closes.
    listed(desk, "A customer").click()
    desk.get_by_role("link", name="Revoke…").first.click()
    look(desk, "4-revoke")
    desk.get_by_role("button", name="Revoke keys").click()
    street.wait_for_function("window.closed_ !== null", timeout=3_000)
    assert street.evaluate("window.closed_") == 1008
    assert customer.last()["error_code"] == "key_revoked"

    # Read the dashboard, which refreshes itself.
    desk.goto("/admin/")
    tile = desk.locator("[data-tile=cancels] [data-value]")
    expect(tile).to_have_text("2", timeout=15_000)
    expect(desk.locator("[data-ranking=keys]")).to_contain_text("A customer", timeout=30_000)
    expect(desk.locator("[data-ranking=personas]")).to_contain_text("Ottilie", timeout=30_000)
    expect(desk.locator("[data-engine=chat]")).to_contain_text("ready", ignore_case=True)
    expect(desk.locator("[data-tile=connections] [data-value]")).to_have_text("1")
    # A turn lasts about one refresh interval of the page; interruptions keep one running.
    running = "document.querySelector('[data-tile=turns] [data-value]').textContent === '1'"
    for _ in range(10):
        say(page, "Tell me a long story of the harbour.")
        page.wait_for_timeout(1_000)
        if desk.evaluate(running):
            break
    assert desk.evaluate(running)
    desk.get_by_role("button", name="Last day").click()
    expect(desk.get_by_role("button", name="Last day")).to_have_attribute("aria-pressed", "true")
    labels = desk.evaluate("Chart.getChart(document.querySelector('[data-chart=turns] canvas')).data.labels.length")
    assert labels == 24
    look(desk, "5-dashboard")


def test_staff_for_personas_only(context: BrowserContext, demo_chat_server: YapServer) -> None:
    make_operator(demo_chat_server)
    demo_chat_server.manage(
        "shell", "-v", "0", "-c",
        "from django.contrib.auth.models import *\n"
        "user, _ = User.objects.get_or_create(username='writer', is_staff=True)\n"
        "user.set_password('a-Password-for-tests-8'); user.save()\n"
        "user.user_permissions.set(Permission.objects.filter(content_type__app_label='personas'))",
    )  # fmt: skip
    page = context.new_page()
    page.goto("/admin/")
    page.fill("[name=username]", "writer")
    page.fill("[name=password]", "a-Password-for-tests-8")
    page.click("button[type=submit]")
    page.wait_for_selector("#dashboard")
    expect(page.locator("[data-ranking]")).to_have_count(0)
    expect(page.get_by_role("link", name="API keys")).to_have_count(0)
    expect(page.get_by_role("link", name="Personas").first).to_be_visible()
    look(page, "6-writer")
    refused = page.goto("/admin/accounts/apikey/")
    assert refused
    assert refused.status == 403
