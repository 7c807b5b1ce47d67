"""An operator teaches a tool: examples, training, acceptance, a wrong decision, and training once more.

The server runs as shipped but for the chat engine: the classifier decides, and no model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import look
from tests.operator import NAME, PASSWORD, make_operator
from tests.security.conftest import fake_server

pytestmark = pytest.mark.browser

DANCE = [
    "dance for me", "please dance", "can you dance", "do a little dance", "dance with me now", "start dancing please",
]  # fmt: skip
OTHER = ["hello you", "tell me a story", "what is your name", "i like bread", "good night", "my cat sleeps all day"]
FORGET = "from personas.models import *\nTool.objects.all().delete()\nToolExample.objects.all().delete()\n"


def decision(page: Page, text: str) -> str:
    """Say something in Try it; return the tool signal."""
    before = page.locator("[data-line=reply][data-ended]").count()
    page.fill("[name=utterance]", text)
    page.press("[name=utterance]", "Enter")
    expect(page.locator("[data-line=reply][data-ended]")).to_have_count(before + 1)
    return page.locator("[data-show=tool]").inner_text()


def train_and_accept(page: Page) -> None:
    page.goto("/admin/personas/toolhead/train/")
    page.get_by_role("button", name="Train now").click()
    accept = page.get_by_role("button", name="Accept")
    expect(accept).to_be_visible(timeout=120_000)
    expect(page.locator("#tool-head")).to_contain_text("False alarms")
    accept.click()
    expect(page.locator("[data-show=state]")).to_contain_text("In force")


def test_a_tool_is_taught_in_the_admin(
    chromium: Browser, server_folder: Callable[[], Path], request: pytest.FixtureRequest
) -> None:
    server = fake_server(server_folder(), DEPLOY_MODELS="chat", TOOL_DECISION="auto")
    request.addfinalizer(server.stop)
    server.start()
    make_operator(server)
    server.manage("shell", "-v", "0", "-c", FORGET)
    page = chromium.new_context(base_url=server.origin, viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto("/admin/")
    page.fill("[name=username]", NAME)
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")

    page.goto("/admin/personas/tool/add/")
    page.fill("[name=name]", "dance")
    page.click("[name=_save]")
    expect(page.locator("#result_list")).to_contain_text("dance")
    page.goto("/admin/personas/toolexample/import/")
    page.fill("[name=pasted]", "\n".join([f"{text} => dance" for text in DANCE] + OTHER))
    page.click("button[type=submit]:has-text('Import')")
    expect(page.locator("#result_list")).to_contain_text("dance for me")
    train_and_accept(page)
    look(page, "tool-classifier")
    page.locator("[name=threshold]").fill("0.5")
    expect(page.locator("[data-show=recall]")).to_contain_text("%")
    page.get_by_role("button", name="Save threshold").click()

    page.goto("/admin/personas/persona/")
    page.locator("#result_list").get_by_role("link").filter(has_text=re.compile("^Mia$")).click()
    page.get_by_role("link", name="Try it").first.click()
    page.wait_for_selector("#try")
    assert decision(page, "dance for me please").startswith("yes: dance (")
    assert decision(page, "tell me a story of bread").startswith("no (")
    page.get_by_role("button", name="Start").click()  # a conversation without history, as after the next training
    wrong = "move your hips to the beat"
    assert decision(page, wrong).startswith("no (")
    page.locator("[data-wrong=dance]").last.click()
    expect(page.locator("[data-line=reply]").last).to_contain_text("Added to the examples")
    look(page, "tool-was-wrong")

    trying = page.url
    train_and_accept(page)
    page.goto(trying)
    assert decision(page, wrong).startswith("yes: dance (")
