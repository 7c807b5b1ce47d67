"""The checks that need a disk, a memory or a Hub of a certain kind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from scripts import preflight
from scripts.model_source import SourceError, check_hub
from scripts.preflight import PreflightError


class Hub(BaseHTTPRequestHandler):
    """Knows owner/open and owner/gated; ``good`` is a token that passes, ``outside`` one that is not let in."""

    def do_GET(self) -> None:
        models = {"/api/models/owner/open": False, "/api/models/owner/gated": "auto"}
        if self.headers["Authorization"] == "Bearer wrong":
            self.answer(401)
        elif self.path in models:
            self.answer(200, {"gated": models[self.path]})
        else:
            self.answer(500 if "broken" in self.path else 404)

    def do_HEAD(self) -> None:
        self.answer(200 if self.headers["Authorization"] == "Bearer good" else 403)

    def answer(self, status: int, body: object = None) -> None:
        self.send_response(status)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def environ(hub: str, folder: Path, token: str) -> dict[str, str]:
    return {"HF_TOKEN": token, "HF_ENDPOINT": hub, "HF_HOME": str(folder)}


@pytest.mark.parametrize(
    ("model", "token", "reason"),
    [
        ("owner/none", "good", "not found on the Hub, or HF_TOKEN may not see it (404)"),
        ("owner/open", "wrong", "not found on the Hub, or HF_TOKEN may not see it (401)"),
        ("owner/gated", "outside", "is gated: accept its terms"),
        ("owner/broken", "good", "the Hub answers 500"),
    ],
)
def test_the_hub_refuses(hub: str, tmp_path: Path, model: str, token: str, reason: str) -> None:
    with pytest.raises(SourceError) as raised:
        check_hub("chat", model, environ(hub, tmp_path, token))
    assert reason in str(raised.value)
    assert token not in str(raised.value)


@pytest.mark.parametrize("model", ["owner/open", "owner/gated"])
def test_the_hub_knows_it(hub: str, tmp_path: Path, model: str) -> None:
    check_hub("chat", model, environ(hub, tmp_path, "good"))


def test_no_hub(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the Hub cannot be asked"):
        check_hub("tool", "owner/open", environ("http://127.0.0.1:9", tmp_path, "good"))


def test_what_is_cached_needs_no_hub(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--owner--open/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    check_hub("tool", "owner/open", environ("http://127.0.0.1:9", tmp_path, "good"))


def test_disk(tmp_path: Path) -> None:
    preflight.check_disk(tmp_path, 0.0)
    with pytest.raises(PreflightError, match=r"GiB of disk free in .*, about 100000000\.0 needed"):
        preflight.check_disk(tmp_path, 1e8)


def test_memory() -> None:
    preflight.check_memory(0.0)
    with pytest.raises(PreflightError, match=r"GiB of memory free, about 1000000\.0 needed for the engines"):
        preflight.check_memory(1e6)


def test_which_models_are_deployed() -> None:
    assert preflight.models({}) == {"chat": None, "tool": None}
    named = {"DEPLOY_MODELS": "chat", "CHAT_MODEL": "a", "AWQ_CHAT_MODEL": "b", "TOOL_MODEL": "c"}
    assert preflight.models(named) == {"chat": "b"}


def test_processor() -> None:
    preflight.check_processor("processor : 0\nflags : sse2 avx2 fma\n", "x86_64")
    with pytest.raises(PreflightError, match="no AVX2"):
        preflight.check_processor("processor : 0\nflags : sse2 avx avx2_not\n", "x86_64")


def test_numa_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(PreflightError, match="apt-get install libnuma1"):
        preflight.check_processor("flags : avx2", "x86_64")
