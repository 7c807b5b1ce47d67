"""main.sh: whatever is missing or wrong is one clear line and a non-zero exit, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from tests.scripts.checkout import Checkout

NAMED = {"TEXT_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "2"}


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode != 0
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("yap: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model"], "one chat and one tool model are needed"),
        (["awq"], "awq needs a model"),
        (["awq", "model"], "one chat and one tool model are needed"),
        (["chat"], "'chat' takes exactly one model"),
        (["tool", "a", "b"], "'tool' takes exactly one model"),
        (["a", "b", "neither"], "'neither': allowed are both, chat, tool"),
        (["a", "b", "both", "more"], "one chat and one tool model are needed"),
        (["chat", "--flag"], "'--flag' is no model"),
        (["", "b"], "'' is no model"),
    ],
)
def test_arguments(checkout: Checkout, arguments: list[str], reason: str) -> None:
    assert_refused(checkout.run("main.sh", *arguments, **NAMED), reason)


@pytest.mark.parametrize(
    ("arguments", "environ", "reason"),
    [
        (["chat", "./here"], {"MAX_CONCURRENT_CONNECTIONS": "2"}, "TEXT_API_KEY is not set"),
        (["chat", "./here"], {"TEXT_API_KEY": "k"}, "MAX_CONCURRENT_CONNECTIONS is not set"),
        (["chat", "./here"], {**NAMED, "MAX_CONCURRENT_CONNECTIONS": "none"}, "MAX_CONCURRENT_CONNECTIONS='none'"),
        (["chat", "./nowhere"], NAMED, "chat model ./nowhere not found"),
        (["tool", "./bin"], NAMED, "is not a model: no config.json"),
        (["awq", "/no/chat", "/no/tool"], NAMED, "chat model /no/chat not found"),
        (["chat", "owner/name"], NAMED, "HF_TOKEN is not set; chat model owner/name comes from the Hub"),
        (["chat", "not an id"], NAMED, "is neither a folder here nor a Hub id"),
        ([], {"PORT": "http"}, "PORT='http': allowed are 1 to 65535"),
        ([], {"PORT": "70000"}, "PORT='70000'"),
        ([], {"HOST": "256.1.1.1"}, "HOST='256.1.1.1'"),
        ([], {"DEPLOY_MODELS": "all"}, "DEPLOY_MODELS=all: allowed are both, chat, tool"),
    ],
)
def test_settings(checkout: Checkout, arguments: list[str], environ: dict[str, str], reason: str) -> None:
    assert_refused(checkout.run("main.sh", *arguments, **environ), reason)
    assert not (checkout.root / "prepared").exists()


def test_port_taken(checkout: Checkout) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", checkout.port))
        other.listen()
        assert_refused(checkout.run("main.sh"), f"port {checkout.port} on 127.0.0.1 cannot be used")


def test_no_python(checkout: Checkout) -> None:
    (checkout.root / ".venv/bin/python").unlink()
    checkout.program("bin/old-python", f'[[ $1 != -c ]] || exec {sys.executable} -c "raise SystemExit(1)"')
    assert_refused(checkout.run("main.sh", PYTHON="old-python"), "no Python 3.11 to 3.13 found (tried: old-python)")


def test_refusals_are_quick(checkout: Checkout) -> None:
    began = time.monotonic()
    checkout.run("main.sh", "chat", "./nowhere", **NAMED)
    assert time.monotonic() - began < 5  # under 0.3 s here; minutes are what is ruled out


def test_help(checkout: Checkout) -> None:
    done = checkout.run("main.sh", "--help")
    assert done.returncode == 0
    assert "scripts/main.sh [awq] chat <chat_model>" in done.stdout
