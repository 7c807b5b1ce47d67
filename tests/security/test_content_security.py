"""F17: no page runs an inline script. Every page of the admin in Chromium: no violation, no error on its console."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page

from tests.browser.conftest import chromium as chromium  # a fixture
from tests.operator import NAME, PASSWORD, make_operator
from tests.security.conftest import StartServer
from tests.server import CHECKOUT, YapServer
from yapserver.content_security import ADMIN, PAGES

PAGES_OF_THE_ADMIN = (
    "/admin/", "/admin/accounts/apikey/", "/admin/accounts/apikey/add/", "/admin/accounts/usage/",
    "/admin/personas/persona/", "/admin/personas/persona/add/", "/admin/personas/persona/import/",
    "/admin/personas/phraselist/", "/admin/personas/phraselist/add/", "/admin/auth/user/", "/admin/auth/user/add/",
    "/admin/auth/group/", "/admin/auth/group/add/", "/admin/password_change/",
)  # fmt: skip
# What a browser would run although it stands in the page: scripts without src, handlers, javascript: addresses.
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>\s*\S|\son\w+\s*=\s*[\"']|javascript:", re.IGNORECASE
)


def picture(page: Page, name: str) -> None:
    """A picture to look at: Chromium draws a page differently where a policy forbids its styles."""
    folder = CHECKOUT / ".run" / "screenshots"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def test_the_policies_name_no_inline_script() -> None:
    for policy in (ADMIN, PAGES):
        scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
        assert "unsafe-inline" not in scripts
        assert "*" not in policy
    assert "unsafe-eval" not in PAGES
    assert "yapserver.content_security.content_security_policy" in settings.MIDDLEWARE


@pytest.fixture(scope="module")
def server(edge_server: YapServer) -> YapServer:
    make_operator(edge_server)
    return edge_server


def test_every_answer_has_a_policy(edge_server: YapServer) -> None:
    import httpx

    with httpx.Client(base_url=edge_server.origin) as http:
        for path in ("/healthz", "/nothere", "/api/docs/", "/api/schema/", "/admin/login/", "/status"):
            answer = http.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert "'unsafe-inline'" not in policy.partition("style-src")[0], path
            if answer.headers["Content-Type"].startswith("text/html"):
                assert not INLINE.search(answer.text), path
                assert "frame-ancestors 'none'" in policy
            else:
                assert policy.startswith("default-src 'none'"), path


@pytest.fixture
def page(chromium: Browser, start_fake: StartServer) -> Iterator[Page]:
    """A page whose violations and script errors fail the test at its end."""
    server = start_fake()
    make_operator(server)
    context = chromium.new_context(base_url=server.origin, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    made = context.new_page()
    wrong: list[str] = []
    made.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    yield made
    context.close()
    assert not wrong, wrong


@pytest.mark.browser
def test_the_admin_works_under_its_policy(page: Page) -> None:
    page.goto("/admin/login/")
    picture(page, "csp-login")
    page.fill("[name=username]", NAME)
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#dashboard")
    for path in PAGES_OF_THE_ADMIN:
        page.goto(path)
        page.wait_for_load_state("networkidle") if path != "/admin/" else page.wait_for_timeout(1500)
        assert not INLINE.search(page.content()), path
        picture(page, f"csp-{path.strip('/').replace('/', '-')}")
    # A key: issued with the password, copied, rotated, revoked; the pages' own scripts run.
    page.goto("/admin/accounts/apikey/add/")
    page.fill("[name=name]", "customer")
    page.fill("[name=own_password]", PASSWORD)
    page.click("[name=_save]")
    key = page.locator("code.api-key").inner_text()
    assert re.fullmatch(r"yap_[a-z0-9]{8}_[A-Za-z0-9]{43}", key)
    picture(page, "csp-key-shown-once")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name=re.compile("Copied|Press")).wait_for()
    assert page.url.endswith("/admin/accounts/apikey/")  # a reload issues nothing
    page.reload()
    page.locator("#result_list").get_by_role("link", name="customer", exact=True).click()
    page.get_by_role("link", name="Rotate…").click()
    picture(page, "csp-rotate")
    page.fill("[name=own_password]", "wrong")
    page.get_by_role("button", name="Rotate keys").click()
    page.get_by_text("This is not your password.").wait_for()
    picture(page, "csp-rotate-refused")
    page.goto("/api/docs/")
    page.get_by_text("personas").first.wait_for()
    picture(page, "csp-api-docs")
