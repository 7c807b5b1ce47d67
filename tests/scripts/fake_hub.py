"""A small Hub on the loopback: what pushing an export asks of it, with faults that a test can order."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_fake_token_that_may_write"


@dataclass
class Repository:
    """One repository: whether it is private, and the files of each branch."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)


class FakeHub:
    """The server. ``requests`` is what was asked, ``fail`` maps a piece of a path to the status that it answers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail: dict[str, int] = {}
        self.cut_after_uploads: int | None = None
        self.role = "write"
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def uploads(self) -> int:
        """How many files have been sent."""
        return sum(line.startswith("PUT ") for line in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: object = None, **headers: str) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        hub, path = self.server_hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        body = self._body()
        for part, status in hub.fail.items():
            if part in f"{self.command} {path}":
                return self._answer(status, {"error": "ordered"})
        if path.startswith("/blob/"):
            return self._blob(path, body)
        if path == "/api/agent-harnesses":
            return self._answer(200, [])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path == "/api/whoami-v2":
            return self._answer(200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": hub.role}}})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        return self._repository(path, body)

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815 (the names are the base class's)

    def _create(self, wish: dict[str, Any]) -> None:
        hub = self.server_hub
        name = f"{wish['organization']}/{wish['name']}" if wish.get("organization") else f"me/{wish['name']}"
        if name in hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
        private = bool(wish.get("private")) or wish.get("visibility") == "private"
        hub.repositories[name] = Repository(private)
        return self._answer(200, {"url": f"{hub.url}/{name}", "name": name, "id": name})

    def _blob(self, path: str, body: bytes) -> None:
        hub = self.server_hub
        if hub.cut_after_uploads is not None and hub.uploads() > hub.cut_after_uploads:
            hub.cut_after_uploads = None
            self.close_connection = True
            self.connection.shutdown(2)
            return
        hub.blobs[hashlib.sha256(body).hexdigest()] = body
        self._answer(200, None, ETag='"x"')

    def _repository(self, path: str, body: bytes) -> None:
        hub = self.server_hub
        found = re.match(r"/(?:api/models/)?([^/]+/[^/.]+(?:\.[^/]+?)??)(\.git)?(?:/(.*))?$", path)
        repository = hub.repositories.get(found[1]) if found else None
        if found is None or repository is None:
            return self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        rest = found[3] or ""
        kind, _, name = rest.partition("/")
        branch = name or "main"
        if rest == "info/lfs/objects/batch":
            return self._batch(json.loads(body))
        if kind == "branch":
            if branch in repository.branches:
                return self._answer(409, {"error": "exists"})
            repository.branches[branch] = dict(repository.branches["main"])
            return self._answer(201, {})
        if kind in ("preupload", "commit", "revision", "") and branch not in repository.branches:
            return self._answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        if kind == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer(200, {"files": files})
        if kind == "commit":
            return self._commit(found[1], repository, branch, body)
        return self._answer(200, {"id": found[1], "sha": "a" * 40, "private": repository.private, "siblings": []})

    def _batch(self, wish: dict[str, Any]) -> None:
        hub = self.server_hub
        objects = []
        for one in wish["objects"]:
            entry: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in hub.blobs:
                entry["actions"] = {"upload": {"href": f"{hub.url}/blob/{one['oid']}", "header": {}}}
            objects.append(entry)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        hub = self.server_hub
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(value["summary"])
            elif entry["key"] == "file":
                repository.branches[branch][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repository.branches[branch][value["path"]] = hub.blobs[value["oid"]]
        number = f"{len(repository.messages):040x}"
        self._answer(200, {"success": True, "commitOid": number, "commitUrl": f"{hub.url}/{name}/commit/{number}"})
