"""Keys, models, limits and errors of the OpenAI surface."""

from __future__ import annotations

from dataclasses import replace

import pytest
from openai.types import Model

from accounts.callers import Limits, Window
from inference.openai.sse import MAX_BODY_BYTES
from tests.fakes.serving import FREE, UNLIMITED
from tests.inference.openai.exchange import HI, Reply, surface
from tests.inference.session_lines import held, limited


def error(reply: Reply) -> tuple[int, str, str]:
    """Status, type and code, once the shape is checked."""
    fields = reply.json["error"]
    assert set(fields) == {"message", "type", "param", "code"}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    return reply.status, fields["type"], fields["code"]


async def test_models_are_the_keys_personas_and_the_bare_model() -> None:
    async with surface() as served:
        listed = (await served.get("/v1/models")).json
        assert listed["object"] == "list"
        for model in listed["data"]:
            Model.model_validate(model, strict=True)
        assert [model["id"] for model in listed["data"]] == ["anna", "max", "fake"]
        assert listed["data"][0]["name"] == "Anna"
        assert listed["data"][0]["max_model_len"] == listed["data"][0]["context_length"] > 0
        served.callers["two"] = replace(UNLIMITED, prefix="two", personas=frozenset({"max"}), own_chat_prompt=False)
        listed = (await served.get("/v1/models", key="two")).json
        assert [model["id"] for model in listed["data"]] == ["max"]


async def test_one_model() -> None:
    async with surface() as served:
        assert (await served.get("/v1/models/anna")).json["id"] == "anna"
        unknown = await served.get("/v1/models/nina")
        assert error(unknown) == (404, "invalid_request_error", "model_not_found")
        assert "there are: anna, max" in unknown.json["error"]["message"]
        head = await served.get("/v1/models/anna")
        bare = await served.begin("/v1/models/anna", method="HEAD").end()
        assert (bare.status, bare.body) == (200, b"")
        assert bare.headers["content-length"] == head.headers["content-length"]


async def test_an_unknown_model_names_the_known_ones_or_is_the_default() -> None:
    async with surface() as served:
        reply = await served.chat_completion(model="gpt-5")
        assert error(reply) == (404, "invalid_request_error", "model_not_found")
        assert "anna, max" in reply.json["error"]["message"]
        assert reply.json["error"]["param"] == "model"
        served.callers["two"] = replace(UNLIMITED, prefix="two", personas=frozenset({"max"}))
        reply = await served.post("/v1/chat/completions", {"model": "anna", "messages": HI}, key="two")
        assert reply.status == 404
        assert "anna" not in reply.json["error"]["message"].split("there are")[1]
    async with surface(default_model="max") as served:
        assert (await served.chat_completion(model="gpt-5")).json["model"] == "max"
        assert (await served.chat_completion(model=None)).json["model"] == "max"


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_wrong_key_is_401(key: str | None) -> None:
    async with surface() as served:
        for path, method in (("/v1/models", "GET"), ("/v1/chat/completions", "POST")):
            reply = await served.begin(path, {}, method=method, key=key).end()
            assert error(reply) == (401, "invalid_request_error", "invalid_api_key")
        await served.all_free()


async def test_paths_and_methods() -> None:
    async with surface() as served:
        assert error(await served.get("/v1/nothing")) == (404, "invalid_request_error", "unknown_url")
        reply = await served.get("/v1/chat/completions")
        assert error(reply) == (405, "invalid_request_error", "method_not_allowed")
        assert reply.headers["allow"] == "POST"
        assert (await served.get("/v1/models/")).status == 200


WRONG_MESSAGES = (b'"hi"', b"[1]", b'[{"role":"nurse","content":"x"}]', b'[{"role":"user","content":5}]')
WRONG_BODIES = (
    b"", b"{", b"[]", b"\xff", b'{"model":"anna"}', b'{"model":"anna","messages":[]}', b'{"model":5,"messages":[]}',
    *(b'{"model":"anna","messages":' + messages + b"}" for messages in WRONG_MESSAGES),
)  # fmt: skip


@pytest.mark.parametrize("body", WRONG_BODIES)
async def test_a_body_that_can_never_work_is_400(body: bytes) -> None:
    async with surface() as served:
        reply = await served.post("/v1/chat/completions", raw=body)
        assert error(reply)[0] == 400
        await served.all_free()


async def test_a_body_over_the_limit_is_413() -> None:
    async with surface() as served:
        assert error(await served.post("/v1/chat/completions", raw=b" " * (MAX_BODY_BYTES + 1)))[0] == 413
        assert error(await served.post("/v1/chat/completions", raw=b" " * MAX_BODY_BYTES))[0] == 400


async def test_the_message_window_holds_for_the_key() -> None:
    async with surface(caller=limited(messages=Window(2, 60.0))) as served:
        assert [(await served.chat_completion()).status for _ in range(2)] == [200, 200]
        reply = await served.chat_completion()
        assert error(reply) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert (await served.get("/v1/models")).status == 200


async def test_an_exhausted_budget_is_not_to_be_retried() -> None:
    async with surface(caller=limited(tokens_per_day=1)) as served:
        await served.chat_completion()
        reply = await served.chat_completion()
        assert error(reply) == (429, "insufficient_quota", "insufficient_quota")
        assert reply.headers["x-should-retry"] == "false"
        assert int(reply.headers["retry-after"]) > 0
        await served.all_free()


async def test_full_slots() -> None:
    chat = held(0)
    async with surface(chat, slots=2) as served:
        own = Limits(FREE, FREE, FREE, connections=1)
        served.callers["two"] = replace(UNLIMITED, prefix="two", limits=own)
        fields = {"model": "anna", "messages": HI}
        first = served.begin("/v1/chat/completions", fields, key="two")
        await chat.wait_for_requests(1)
        reply = await served.post("/v1/chat/completions", fields, key="two")
        assert error(reply) == (429, "rate_limit_error", "rate_limit_exceeded")
        second = served.begin("/v1/chat/completions", fields)
        await chat.wait_for_requests(2)
        reply = await served.post("/v1/chat/completions", fields)
        assert error(reply) == (503, "server_error", "server_at_capacity")
        assert reply.headers["retry-after"]
        for request in (first, second):
            request.leave()
            await request.end()
        await served.all_free()


async def test_a_server_that_is_not_ready_or_stops() -> None:
    async with surface() as served:
        served.context.serving.started = False
        reply = await served.chat_completion()
        assert error(reply) == (503, "server_error", "server_not_ready")
        served.context.serving.started, served.context.serving.draining = True, True
        assert error(await served.chat_completion()) == (503, "server_error", "server_draining")


async def test_a_last_message_longer_than_the_context_is_refused_and_a_long_one_is_whole() -> None:
    async with surface() as served:
        long = "word " * 600
        reply = await served.chat_completion(messages=[{"role": "user", "content": long}])
        assert reply.status == 200
        assert reply.json["usage"]["prompt_tokens"] > 600
        for size in (6_000, 200_000):
            reply = await served.chat_completion(messages=[{"role": "user", "content": "word " * size}])
            assert error(reply) == (400, "invalid_request_error", "context_length_exceeded")
        await served.all_free()


async def test_a_refused_request_counts_in_the_metrics() -> None:
    async with surface() as served:
        await served.chat_completion(model="gpt-5")
        text = served.context.serving.metrics.refusals.labels("model_not_found")._value.get()
        assert text == 1


async def test_a_caller_is_remembered_for_a_second_and_no_longer() -> None:
    async with surface() as served:
        now = 100.0
        served.context.callers._clock = lambda: now
        assert (await served.get("/v1/models")).status == 200
        del served.callers["key-one"]
        now += 0.9
        assert (await served.get("/v1/models")).status == 200
        now += 0.2
        assert (await served.get("/v1/models")).status == 401


async def test_a_path_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with surface() as served:
        assert (await served.get("/v1/a\n2026-01-01 INFO forged" + "x" * 5000)).status == 404
    assert "\\n2026-01-01 INFO forged" in caplog.text
    assert all(len(record.getMessage()) < 300 for record in caplog.records if record.name == "yap.openai")


async def test_a_try_it_ticket_is_no_key() -> None:
    async with surface(caller=replace(UNLIMITED, key_id=None, operator_id=1)) as served:
        for path in ("/v1/models", "/v1/model"):
            assert (await served.get(path)).status == 401
        assert (await served.post("/v1/token/encode", {"text": "a"})).status == 401
        assert (await served.chat_completion()).json["error"]["code"] == "invalid_api_key"
