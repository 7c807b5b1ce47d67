"""The page to talk at `/` in Chromium, against a real server: key, personas, turns, barge-in, tool signal, voice."""

from __future__ import annotations

import itertools
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.browser.conftest import look
from tests.browser.talking import ended, enter, replies, say, talk
from tests.documents import README, blocks, section
from tests.server import CHECKOUT, YapServer

pytestmark = pytest.mark.browser

# Runs in the page: on a busy machine a reply may end before an action of the test arrives.
INTERRUPT = """
([number, words]) => new Promise((done) => {
  const seen = [];
  const timer = setInterval(() => {
    const text = document.querySelectorAll("[data-line=reply] .bubble")[number]?.textContent ?? "";
    if (text && text !== seen.at(-1)) seen.push(text);
    if (text.length < 20) return;
    clearInterval(timer);
    if (words === null) document.querySelector("[data-do=stop]").click();
    else {
      document.querySelector("[name=utterance]").value = words;
      document.getElementById("say").requestSubmit();
    }
    done(seen);
  }, 5);
})
"""

# The browser's voice: utterances end when the test says so, and words are heard when the test says them.
VOICE = """
window.voice_ = { said: [], cancels: 0 };
window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
Object.defineProperty(window, "speechSynthesis", { value: {
  speak(utterance) { window.voice_.said.push(utterance); },
  cancel() { window.voice_.cancels += 1; },
} });
window.SpeechRecognition = class {
  start() { window.voice_.recognition = this; window.voice_.started = (window.voice_.started ?? 0) + 1; }
  abort() { window.voice_.recognition = null; }
};
window.hear_ = (words, isFinal) => {
  const result = Object.assign([{ transcript: words }], { isFinal });
  window.voice_.recognition.onresult({ results: [result], resultIndex: 0 });
};
"""

SOCKETS = """
window.sockets_ = [];
window.sent_ = [];
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) { super(...given); window.sockets_.push(this); }
  send(data) { window.sent_.push(JSON.parse(data)); super.send(data); }
};
"""


def test_a_wrong_key_is_refused_and_not_kept(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = visitor.new_page()
    enter(page, "yap_wrongkey_" + "x" * 43)
    expect(page.locator("[data-show=key-error]")).to_contain_text("does not accept this key")
    expect(page.locator("#talk")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    look(page, "7-talk-wrong-key")
    for name in ("HTTP API", "Admin"):
        expect(page.locator("#welcome").get_by_role("link", name=name, exact=True)).to_be_visible()


def test_a_conversation(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = talk(visitor, demo_chat_server)
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    assert {"Mia", "Nova", "Theo"} <= {*page.locator("#personas strong").all_inner_texts()}  # other tests add some
    look(page, "7-talk-start")

    # A turn: text streams, the tool signal and the times are shown.
    say(page, "Tell me a long story of the sea.")
    seen = page.evaluate(INTERRUPT, [0, "Wait! Tell me a long story of a lighthouse."])
    assert all(later.startswith(before) for before, later in itertools.pairwise(seen))
    cut = ended(page, 0, "cancelled")
    assert cut.startswith(seen[0])  # text was shown before the end
    expect(replies(page).nth(0).locator("[data-note=cut]")).to_have_text("interrupted")
    text = ended(page, 1)
    assert len(text) > 20
    assert replies(page).nth(0).locator(".bubble").inner_text() == cut
    notes = replies(page).nth(1).locator(".notes")
    expect(notes.locator("[data-note~=tool]")).to_have_text(re.compile("no tool|tool: take_screenshot"))
    expect(notes.locator("[data-note=signal]")).to_have_text(re.compile(r"^signal \d+ ms$"))
    expect(notes.locator("[data-note=first]")).to_have_text(re.compile(r"^first text \d+ ms$"))
    expect(notes.locator("[data-note=tokens]")).to_have_text(re.compile(r"^\d+ tokens$"))
    expect(page.locator("[data-show=state]")).to_have_text("listening")

    # Stop.
    say(page, "Tell me a long story of the weather.")
    page.evaluate(INTERRUPT, [2, None])
    ended(page, 2, "cancelled")
    expect(replies(page).nth(2).locator("[data-note=cut]")).to_have_text("stopped")
    look(page, "7-talk-conversation")

    # Another character begins a conversation of its own; the key survives a reload and not a click on "Forget".
    page.locator("#personas").get_by_role("button", name="Theo").click()
    expect(replies(page)).to_have_count(0)
    expect(page.locator("[data-show=name]")).to_have_text("Theo")
    page.get_by_role("button", name="Let Theo begin").click()
    assert ended(page, 0)
    expect(page.locator("[data-line=user] .bubble")).to_be_hidden()
    page.reload()
    expect(page.locator("#talk")).to_be_visible()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_the_tool_signal_and_its_answer(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = talk(visitor, demo_chat_server)
    for number in range(4):
        say(page, "Take a screenshot and look at my screen now, please.")
        ended(page, number)
        if replies(page).nth(number).locator("[data-note~=yes]").count():
            break
    expect(replies(page).nth(number).locator("[data-note~=yes]")).to_have_text("tool: take_screenshot")
    look(page, "7-talk-tool")
    answer = replies(page).nth(number).locator("form input")
    answer.fill("A weather page for Lisbon: sunny, 24 degrees.")
    answer.press("Enter")
    assert ended(page, number + 1)
    assert replies(page).nth(number + 1).locator("[data-note~=tool]").count() == 0  # a turn of the chat engine alone


def test_a_lost_connection_is_opened_again(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = talk(visitor, demo_chat_server, SOCKETS)
    say(page, "My name is Wilhelmina. Say hello.")
    ended(page, 0)
    page.evaluate("window.sockets_[0].close(4999)")  # a close that the server did not ask for is a loss
    say(page, "What is my name?")
    assert ended(page, 1)
    assert page.evaluate("window.sockets_.length") == 2
    carried = page.evaluate("window.sent_.map((message) => message.history_text).filter(Boolean)")
    assert len(carried) == 1
    assert carried[0].startswith("User: My name is Wilhelmina. Say hello.\nAssistant: ")

    # During a reply: its rest is lost, the page says so, and the conversation goes on.
    say(page, "Tell me a long story.")
    expect(replies(page).nth(2).locator(".bubble")).to_contain_text(re.compile(r"\w"))
    page.evaluate("window.sockets_[1].close(4999)")
    expect(page.locator("body")).to_contain_text("and with it the rest of this reply")
    say(page, "Go on.")
    assert ended(page, 3)
    state = page.locator("[data-show=state]")
    expect(state).to_have_text("listening")


def test_the_voice(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = talk(visitor, demo_chat_server, VOICE, SOCKETS)
    page.click("[data-do=speak]")
    page.click("[data-do=listen]")
    expect(page.locator("[data-show=notice]")).to_contain_text("Listening")
    page.evaluate("window.hear_('Tell me a', false)")
    expect(page.locator("[name=utterance]")).to_have_value("Tell me a")
    page.evaluate("window.hear_('Tell me a long story.', true)")
    expect(page.locator("[data-line=user] .bubble")).to_have_text("Tell me a long story.")
    text = ended(page, 0)
    said = page.evaluate("window.voice_.said.map(({ text }) => text)")
    assert len(said) > 1
    assert "".join("".join(said).split()) == "".join(text.split())  # all of it, sentence by sentence
    expect(page.locator("[data-show=state]")).to_have_text("speaking")

    # The loudspeaker's own words are no interruption. Words of the user silence the voice; `heard` is what was spoken.
    page.evaluate("words => window.hear_(words, false)", " ".join(said[0].split()[:3]))
    assert page.evaluate("window.voice_.cancels") == 0
    heard = len(said[0]) // 2
    page.evaluate("place => window.voice_.said[0].onboundary({ charIndex: place })", heard)
    page.evaluate("window.hear_('Wait a moment', false)")
    assert page.evaluate("window.voice_.cancels") == 1
    cancel = page.evaluate("window.sent_.findLast(({ type }) => type === 'cancel')")
    assert (cancel["heard"], cancel["heard_unit"]) == (heard, "utf16")
    unheard = replies(page).nth(0).locator(".unheard").text_content()
    assert unheard
    assert text.endswith(unheard.strip())
    assert len(unheard) < len(text)
    page.evaluate("window.hear_('Wait a moment, who was it?', true)")
    assert ended(page, 1)
    page.click("[data-do=speak]")
    assert page.evaluate("window.voice_.cancels") == 2
    page.click("[data-do=listen]")
    assert page.evaluate("window.voice_.recognition") is None


def test_a_microphone_that_is_not_allowed(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = talk(visitor, demo_chat_server, VOICE)
    page.click("[data-do=listen]")
    page.evaluate("window.voice_.recognition.onerror({ error: 'not-allowed' })")
    expect(page.locator("[data-show=notice]")).to_have_text("The microphone cannot be used (not-allowed).")
    expect(page.locator("[data-do=listen]")).to_have_attribute("aria-pressed", "false")


def test_the_settings_for_other_clients(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    page = visitor.new_page()
    page.goto("/")
    page.locator("#welcome").get_by_role("button", name="Connect your own client").click()
    dialog = page.get_by_role("dialog")
    for tab in dialog.get_by_role("tab").all():
        tab.click()
        expect(dialog.get_by_role("tabpanel")).to_have_count(1)
        expect(dialog.get_by_role("tabpanel")).to_contain_text(f"127.0.0.1:{demo_chat_server.port}")
    look(page, "7-talk-connect")
    dialog.get_by_role("tab").first.click()
    visitor.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog.get_by_role("tabpanel").get_by_role("button", name="Copy").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == dialog.get_by_role("tabpanel").locator("pre").first.inner_text()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_the_readme_example_for_web_pages_runs(visitor: BrowserContext, demo_chat_server: YapServer) -> None:
    (example,) = blocks(section(README.read_text(), "A web page"), "js")
    address, key = f"127.0.0.1:{demo_chat_server.port}", demo_chat_server.api_key
    files = {
        "/example.js": example.replace("127.0.0.1:8000", address).replace("YAP_KEY", key),
        "/yap.js": (CHECKOUT / "yapserver/static/yapserver/yap.js").read_text(),
    }
    page = visitor.new_page()

    def answer(route: Route) -> None:
        route.fulfill(content_type="text/javascript", body=files[urlsplit(route.request.url).path])

    for path in files:
        page.route(demo_chat_server.origin + path, answer)
    page.goto("/")  # Chromium lets a page that came from this machine connect to it
    with page.expect_console_message(lambda message: message.type == "log") as logged:
        page.add_script_tag(url="/example.js", type="module")
    status, ttft = logged.value.args
    assert status.json_value() in ("yes", "no")
    assert ttft.json_value() > 0
    pieces = "[...document.body.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('')"
    assert len(page.evaluate(pieces).strip()) > 20
