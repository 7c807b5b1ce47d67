"""A page of another origin in Chromium, which asks `/v1` with `fetch` as the `openai` package does."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.server import YapServer

pytestmark = pytest.mark.browser

ASK = """
async ([url, key]) => {
  const headers = {"Authorization": `Bearer ${key}`, "Content-Type": "application/json", "X-Stainless-Lang": "js"};
  const messages = [{role: "user", content: "Hello!"}];
  const body = JSON.stringify({model: "mia", messages, stream: true});
  const answer = await fetch(`${url}/v1/chat/completions`, {method: "POST", headers, body});
  return [answer.status, answer.headers.get("x-request-id"), await answer.text()];
}
"""
READ_STATUS = "url => fetch(`${url}/status`).then(() => 'read', () => 'blocked')"


def test_a_page_of_another_origin(chromium: Browser, demo_chat_server: YapServer) -> None:
    """`localhost` and `127.0.0.1` are two origins; the first one's Content-Security-Policy is not what is tested."""
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(demo_chat_server.origin.replace("127.0.0.1", "localhost") + "/healthz")
    status, request_id, text = page.evaluate(ASK, [demo_chat_server.origin, demo_chat_server.api_key])
    assert (status, len(request_id)) == (200, 32)
    assert text.rstrip().endswith("data: [DONE]")
    status, _, text = page.evaluate(ASK, [demo_chat_server.origin, "wrong"])
    assert status == 401
    assert "invalid_api_key" in text
    assert page.evaluate(READ_STATUS, demo_chat_server.origin) == "blocked"  # only /v1 is for other origins
    context.close()
