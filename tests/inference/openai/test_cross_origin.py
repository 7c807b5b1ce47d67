"""Web pages of other origins: preflights, and the headers of every answer."""

from __future__ import annotations

import pytest

from inference.openai.cross_origin import CrossOrigin
from inference.openai.sse import MAX_BODY_BYTES
from tests.inference.openai.exchange import HI, SAID, Reply, Surface, surface

PAGE = b"https://chat.example.com"
CHAT = "/v1/chat/completions"
ASKED = b"authorization,content-type,x-stainless-retry-count"


async def preflight(served: Surface, origin: bytes = PAGE, asked: bytes = ASKED, path: str = CHAT) -> Reply:
    headers = [
        (b"origin", origin), (b"access-control-request-method", b"POST"), (b"access-control-request-headers", asked)
    ]  # fmt: skip
    return await served.begin(path, method="OPTIONS", key=None, headers=headers).end()


def allowed(reply: Reply) -> str | None:
    assert "access-control-allow-credentials" not in reply.headers
    return reply.headers.get("access-control-allow-origin")


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/responses", "/tokenize"])
async def test_a_preflight_needs_no_key(path: str) -> None:
    async with surface(origins=(PAGE.decode(), "http://other")) as served:
        reply = await preflight(served, path=path)
        assert (reply.status, reply.body, allowed(reply)) == (200, b"", PAGE.decode())
        assert reply.headers["access-control-allow-methods"] == "GET, HEAD, POST"
        assert reply.headers["access-control-allow-headers"] == ASKED.decode()
        assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("asked", [b"", b"a\r\nb", b"x" * 65, b",".join([b"x"] * 65), b"a;b"])
async def test_strange_header_names_are_not_repeated(asked: bytes) -> None:
    async with surface(origins=("*",)) as served:
        reply = await preflight(served, asked=asked)
        assert reply.headers["access-control-allow-headers"] == "authorization, content-type, x-api-key"


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",), ("http://chat.example.com",)])
async def test_a_page_that_is_not_allowed_learns_nothing(origins: tuple[str, ...]) -> None:
    async with surface(origins=origins) as served:
        reply = await preflight(served)
        assert (reply.status, allowed(reply)) == (405, None)
        assert reply.headers.get("vary") == ("Origin" if origins else None)
        reply = await served.begin("/v1/models", method="GET", headers=[(b"origin", PAGE)]).end()
        assert (reply.status, allowed(reply)) == (200, None)


@pytest.mark.parametrize(("origins", "told"), [(("*",), "*"), ((PAGE.decode(),), PAGE.decode())])
async def test_every_answer_says_who_may_read_it(origins: tuple[str, ...], told: str) -> None:
    body = {"model": "anna", "messages": HI}
    async with surface(origins=origins) as served:
        page = {"headers": [(b"origin", PAGE)]}
        replies = [
            await served.post(CHAT, body, **page),
            streamed := await served.post(CHAT, {**body, "stream": True}, **page),
            await served.get("/v1/models", **page),
            await served.post(CHAT, body, key="wrong", **page),
            await served.post(CHAT, {}, **page),
            await served.get("/v1/nothing", **page),
            await served.get(CHAT, **page),
            await served.post(CHAT, raw=b" " * (MAX_BODY_BYTES + 1), **page),
        ]
        assert [reply.status for reply in replies] == [200, 200, 200, 401, 400, 404, 405, 413]
        assert {allowed(reply) for reply in replies} == {told}
        assert all("retry-after" in reply.headers["access-control-expose-headers"] for reply in replies)
        assert streamed.text == SAID
        await served.all_free()


async def test_a_client_that_is_no_page_sees_no_difference() -> None:
    async with surface(origins=("*",)) as served:
        reply = await served.get("/v1/models")
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]
        assert (await served.begin("/v1/models", method="OPTIONS").end()).status == 405


@pytest.mark.parametrize("origin", ["chat.example.com", "https://chat.example.com/", "https://", "null", "https://a b"])
def test_a_text_that_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="CORS_ORIGINS"):
        CrossOrigin([origin])


@pytest.mark.parametrize("origin", ["", " https://A.example.com ", "http://127.0.0.1:3000", "http://[::1]:80", "*"])
def test_origins(origin: str) -> None:
    CrossOrigin([origin])
