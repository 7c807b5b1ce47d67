"""The fuzzer's surfaces: sends one case to a server and returns the kind of answer."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.operator import NAME, PASSWORD
from tests.security import fuzz_cases as cases
from tests.security.fuzz_cases import Case
from tests.security.fuzz_forms import Form
from tests.security.fuzz_openai import PATHS
from tests.security.raw_socket import exchange
from tests.server import YapServer

_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class Senders:
    """Sends cases with the server's own key and an operator's session."""

    def __init__(self, server: YapServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.origin, timeout=60)
        self.http.get("/admin/login/")
        self._post("/admin/login/", {"username": NAME, "password": PASSWORD})
        models = self.http.get("/v1/models", headers=self._key).json()["data"]
        self._bare = models[-1]["id"]  # the chat model itself comes last

    def close(self) -> None:
        """End the operator's session."""
        self.http.close()

    @property
    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.api_key}"}

    def message(self, case: Case) -> str:
        """A message on a connection of its own, behind a ``start`` where one is needed."""
        text = case.value if isinstance(case.value, str) else json.dumps(case.value, ensure_ascii=False)
        last = "nothing"
        url = self.server.ws_url
        with (
            suppress(ConnectionClosed),
            connect(url, additional_headers=self._key, max_size=None, close_timeout=2) as line,
        ):
            if case.surface in ("chat_prompt", "followup", "resume"):
                line.send(json.dumps(cases.START))
                while json.loads(line.recv(20))["type"] != "done":
                    pass
            line.send(text)
            line.send('{"type":"ping","request_id":"last"}')
            while True:
                frame = json.loads(line.recv(20))
                if frame.get("request_id") == "last":
                    return last
                last = str(frame.get("error_code") or (last if last not in ("nothing", "token") else frame["type"]))
        return last

    def openai(self, case: Case) -> str:
        """A request below ``/v1``, or an event of the Responses WebSocket."""
        path = PATHS[case.surface][0]
        value = case.value
        if isinstance(value, dict) and value.get("model") == "bare":
            value = {**value, "model": self._bare}
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if path:
            headers = {**self._key, "Content-Type": "application/json"}
            try:
                answer = self.http.post(path, content=text.encode(), headers=headers)
            except httpx.HTTPError as error:
                return type(error).__name__
            return f"HTTP {answer.status_code}"
        url = f"ws://127.0.0.1:{self.server.port}/v1/responses"
        try:
            with connect(url, additional_headers=self._key, max_size=None, close_timeout=2) as line:
                line.send(text)
                while (event := json.loads(line.recv(20)))["type"] not in _ENDS:
                    pass
        except ConnectionClosed as closed:
            return f"close {closed.rcvd.code if closed.rcvd else '-'}"
        return str(event["error"]["code"] if event["type"] == "error" else event["type"])

    def card(self, case: Case) -> str:
        """A file in the import form of character cards."""
        fields = {"gender": "male", "personality": "calm"}
        return self._post("/admin/personas/persona/import-card/", fields, [("file", ("card", case.value))])

    def form(self, form: Form, case: Case) -> str:
        """A form of the admin."""
        if form.stranger:
            with httpx.Client(base_url=self.server.origin, timeout=60) as stranger:
                stranger.get("/admin/login/")
                fields = {**case.value, "csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
                return f"HTTP {stranger.post(form.path, data=fields).status_code}"
        if form.encoded:
            fields = {**case.value, "csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
            return f"HTTP {self.http.post(form.path, data=fields).status_code}"
        return self._post(form.path, case.value)

    def page(self, case: Case) -> str:
        """A page of the admin by its address."""
        return f"HTTP {self.http.get(case.value).status_code}"

    def many(self, case: Case) -> str:
        """A form with many fields or files."""
        if case.surface == "many files":
            files = [("file", (f"{number}", b"x")) for number in range(case.value)]
            return self._post("/admin/personas/persona/import-card/", {"gender": "male"}, files)
        fields = {f"f{number}": "x" for number in range(case.value)}
        return self._post("/admin/personas/phraselist/add/", fields)

    def header(self, case: Case) -> str:
        """One request with large headers, many of them, or a large path or query string."""
        size, value = case.size, case.value
        path, extra = "/status", ""
        match case.field:
            case "(path)":
                path = f"/{value}"
            case "(query)":
                path = f"/status?q={value}"
            case "(key)":
                path = f"/status?api_key={value}"
            case "(parameters)":
                path = "/status?" + "&".join(["a=b"] * size)
            case "(name)":
                extra = f"{value}: a\r\n"
            case "(number)":
                extra = "".join(f"A{number}: b\r\n" for number in range(size))
            case name:
                extra = f"{name}: {value}\r\n"
        host = "" if case.field == "Host" else "Host: 127.0.0.1\r\n"
        request = f"GET {path} HTTP/1.1\r\n{host}{extra}Connection: close\r\n\r\n"
        answer = exchange(self.server, request.encode())
        return f"HTTP {answer.split(b' ', 2)[1].decode()}" if answer else "closed"

    def _post(self, path: str, fields: dict[str, str], files: list[tuple[str, tuple[str, bytes]]] | None = None) -> str:
        """A form as browsers send the admin's: multipart."""
        parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
        parts += [("csrfmiddlewaretoken", (None, self.http.cookies["csrftoken"])), *(files or ())]
        try:
            answer = self.http.post(path, files=parts)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"HTTP {answer.status_code}"
