"""The page to talk at `/`, without a browser: its answer, its policy, its switch, and the guides for other clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from pytest_django import Settings

from tests.documents import README, section
from yapserver.client_guides import client_guides


@pytest.fixture(autouse=True)
def _no_static_files(settings: Settings) -> None:
    """The middleware of static files looks at every one of them for every new client."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("whitenoise.")]


def test_the_page_runs_nothing_inline(client: Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    html = answer.content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", html)
    policy = dict(part.split(" ", 1) for part in answer["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' ws://testserver wss://testserver"
    assert answer["Cache-Control"] == "no-cache"


def test_its_files_exist(client: Client) -> None:
    html = client.get("/").content.decode()
    files = re.findall(r"(?:src|href)=\"/static/([^\"]+)\"", html)
    assert {"yapserver/talk.js", "yapserver/talk.css", "yapserver/favicon.svg"} <= set(files)
    for name in files:
        assert finders.find(name), name


def test_only_reads_are_answered(client: Client) -> None:
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405


def test_a_setting_switches_the_page_off(client: Client, settings: Settings) -> None:
    settings.ENV = settings.ENV.model_copy(update={"TALK_PAGE": False})
    assert client.get("/").status_code == 404


def test_a_host_that_is_not_allowed_is_refused(client: Client, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["yap.example"]
    assert client.get("/", headers={"Host": "evil.example; script-src *"}).status_code == 400


def test_the_guides_are_those_of_the_readme(client: Client) -> None:
    guides = client_guides(README)
    said = section(README.read_text(), "Connect what you have")
    assert [guide.name for guide in guides] == re.findall(r"^### (.+)$", said, re.MULTILINE)
    html = client.get("/").content.decode()
    for guide in guides:
        assert f'id="connect-{guide.slug}"' in html
        for part in guide.parts:
            if part.is_code:
                assert part.text in said
    code = [part.text for guide in guides for part in guide.parts if part.is_code]
    assert len(code) >= len(guides)


def test_without_the_openai_api_its_clients_are_left_out(client: Client, settings: Settings) -> None:
    settings.ENV = settings.ENV.model_copy(update={"OPENAI_API": False})
    html = client.get("/").content.decode()
    assert re.findall(r'role="tabpanel" id="connect-([\w-]+)"', html) == ["a-web-page"]


@pytest.mark.parametrize("text", [None, "# Yap\n\nNothing here.\n"])
def test_without_the_section_there_is_no_guide(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert client_guides(tmp_path / "README.md") == ()
