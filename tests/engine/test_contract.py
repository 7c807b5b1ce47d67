"""The contract of every engine, checked on the fake and on the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from inference.engines import engine_metrics, step_statistics
from inference.engines.base import PRIORITY_WARM, Delta, EngineDead, EngineRole, GenerationRequest
from inference.engines.managed_engine import OwnedEngine
from inference.engines.sampling import GREEDY, Sampling
from inference.engines.service import EngineService, vllm_service
from inference.engines.spec import EngineSpec
from inference.engines.step_statistics import Steps
from tests.fakes.engine import FakeEngine

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = CHECKOUT / ".models" / "tiny-random-llama"
LONG = 400
SCHEMA = (
    '{"type":"array","maxItems":1,"items":{"type":"object","properties":{"n":{"enum":["a","b"]}},"required":["n"]}}'
)
PROMPT = "Tell me about the sea, the sky, and everything that one can see on a clear day from the top of a hill."

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = count()


def _fake(spec: EngineSpec) -> OwnedEngine:
    words = " ".join(f"word{number}" for number in range(LONG))
    return FakeEngine(spec.role, words, model=spec.model, max_model_len=spec.max_model_len)


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=["fake", pytest.param("vllm", marks=pytest.mark.engine)]
)
async def service(request: pytest.FixtureRequest) -> AsyncIterator[EngineService]:
    spec = EngineSpec(EngineRole.CHAT, str(TINY), 2048, max_num_seqs=2)
    made = EngineService([spec], _fake) if request.param == "fake" else vllm_service([spec], str(CHECKOUT))
    try:
        await made.ensure_running()
        yield made
    finally:
        await made.aclose()


@pytest.fixture
def engine(service: EngineService) -> OwnedEngine:
    return service.engine(EngineRole.CHAT)  # type: ignore[return-value]


def _request(engine: OwnedEngine, text: str = PROMPT, max_tokens: int = 24, **more: Any) -> GenerationRequest:
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    fields = {"sampling": GREEDY, **more}
    return GenerationRequest(f"contract-{next(_numbers)}", ids, max_tokens, **fields)


async def _deltas(engine: OwnedEngine, request: GenerationRequest) -> list[Delta]:
    async with aclosing(engine.generate(request)) as stream:
        return [delta async for delta in stream]


def _ids(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


def _text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def _until(engine: OwnedEngine, requests: int) -> None:
    """Wait until the engine has this many requests; statistics have no event."""
    async with asyncio.timeout(5):
        while engine.stats()["running"] + engine.stats()["waiting"] != requests:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_deltas_add_up_to_the_ids_and_their_text(engine: OwnedEngine) -> None:
    request = _request(engine)
    deltas = await _deltas(engine, request)
    assert len(deltas) > 1
    assert _text(deltas) == engine.tokenizer.decode(_ids(deltas), skip_special_tokens=True)
    assert {delta.prompt_tokens for delta in deltas} == {len(request.prompt_ids)}


async def test_only_the_last_delta_has_a_finish_reason(engine: OwnedEngine) -> None:
    deltas = await _deltas(engine, _request(engine))
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == "length"
    assert len(_ids(deltas)) == 24


async def test_an_end_token_stops_and_is_not_told(engine: OwnedEngine) -> None:
    if isinstance(engine, FakeEngine):
        engine.reply, told = "Enough.", engine.reply
        deltas = await _deltas(engine, _request(engine, max_tokens=LONG))
        engine.reply = told
    else:
        # Random text does not end by itself, so a bias makes it end.
        end = engine.tokenizer.eos_token_id
        deltas = await _deltas(engine, _request(engine, logit_bias={end: 100.0}, sampling=Sampling(temperature=0.2)))
        assert _ids(deltas) == []
    assert deltas[-1].finish_reason == "stop"
    assert engine.tokenizer.eos_token_id not in _ids(deltas)
    assert engine.tokenizer.eos_token not in _text(deltas)


async def test_closing_the_stream_frees_the_engine(engine: OwnedEngine) -> None:
    async with aclosing(engine.generate(_request(engine, max_tokens=1500))) as stream:
        async for delta in stream:
            if delta.token_ids:
                break
        assert engine.stats()["running"] == 1
    await _until(engine, 0)


async def test_cancelling_the_reader_frees_the_engine_for_others(engine: OwnedEngine) -> None:
    """At most two sequences run at once: the third one starts only after the core has dropped the cancelled ones."""
    readers = [asyncio.create_task(_deltas(engine, _request(engine, str(n), max_tokens=1900))) for n in range(2)]
    await _until(engine, 2)
    for reader in readers:
        reader.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*readers, return_exceptions=True)
    )
    await _until(engine, 0)
    async with asyncio.timeout(2):
        assert len(_ids(await _deltas(engine, _request(engine, max_tokens=4)))) == 4


async def test_cancelling_before_the_first_token(engine: OwnedEngine) -> None:
    reader = asyncio.create_task(_deltas(engine, _request(engine, PROMPT * 20, max_tokens=1000)))
    await _until(engine, 1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await _until(engine, 0)


async def test_structured_output_is_json_of_the_schema(engine: OwnedEngine) -> None:
    for _ in range(3):
        deltas = await _deltas(engine, _request(engine, json_schema=SCHEMA, max_tokens=40, sampling=Sampling()))
        value = json.loads(_text(deltas))
        assert value == [] or (len(value) == 1 and value[0]["n"] in ("a", "b"))
        assert deltas[-1].finish_reason == "stop"


async def test_both_priorities_are_served(engine: OwnedEngine) -> None:
    both = [_request(engine, str(level), 4, priority=level) for level in (PRIORITY_WARM, 0)]
    assert [len(_ids(deltas)) for deltas in await asyncio.gather(*(_deltas(engine, one) for one in both))] == [4, 4]


async def test_a_repeated_prefix_comes_from_the_cache(engine: OwnedEngine) -> None:
    text = "A prefix that nobody else in this module has asked for, " * 8
    first = (await _deltas(engine, _request(engine, text, 2)))[-1]
    again = (await _deltas(engine, _request(engine, text + "with an end of its own", 2)))[-1]
    assert first.cached_tokens == 0
    assert 64 <= again.cached_tokens <= again.prompt_tokens


async def test_a_prefix_is_not_shared_across_salts(engine: OwnedEngine) -> None:
    text = "A prefix that is asked for under three salts, and under each of them twice, " * 8
    for salt in (None, "one key", "another key"):
        first = (await _deltas(engine, _request(engine, text, 2, cache_salt=salt)))[-1]
        again = (await _deltas(engine, _request(engine, text, 2, cache_salt=salt)))[-1]
        assert (first.cached_tokens, again.cached_tokens >= 64) == (0, True)


async def test_logprobs_come_with_every_token_when_asked_for(engine: OwnedEngine) -> None:
    plain = await _deltas(engine, _request(engine, max_tokens=6))
    assert all(not delta.logprobs for delta in plain)
    deltas = await _deltas(engine, _request(engine, max_tokens=6, want_logprobs=3))
    steps = [step for delta in deltas for step in delta.logprobs]
    ids = _ids(deltas)
    assert len(steps) == len(ids) == 6
    for token, step in zip(ids, steps, strict=True):
        assert step[token] == max(step.values()) <= 0.0  # greedy: the sampled token is the most likely one


async def test_a_forbidden_token_is_not_drawn(engine: OwnedEngine) -> None:
    plain = _ids(await _deltas(engine, _request(engine)))
    bent = _ids(await _deltas(engine, _request(engine, logit_bias={plain[0]: -100.0})))
    assert plain[0] not in bent


async def test_what_cannot_be_run_is_a_value_error(engine: OwnedEngine) -> None:
    with pytest.raises(ValueError, match="biases"):
        await _deltas(engine, _request(engine, logit_bias=dict.fromkeys(range(1025), 1.0)))
    with pytest.raises(ValueError, match="empty"):
        await _deltas(engine, _request(engine, ""))
    with pytest.raises(ValueError, match="2048"):
        await _deltas(engine, _request(engine, PROMPT * 200))
    assert len(_ids(await _deltas(engine, _request(engine, max_tokens=2)))) == 2


async def test_a_prompt_that_ends_with_half_a_character_is_not_said_again(engine: OwnedEngine) -> None:
    halves = engine.tokenizer.encode("\N{PARROT}", add_special_tokens=False)
    assert len(halves) > 1
    request = _request(engine, max_tokens=12)
    whole = GenerationRequest(f"{request.request_id}-half", [*request.prompt_ids, *halves[:-1]], 12, GREEDY)
    text = _text(await _deltas(engine, whole))
    assert "Tell me" not in text
    assert "on a clear day" not in text


async def test_a_reply_ends_where_the_context_does(engine: OwnedEngine) -> None:
    near = engine.tokenizer.encode(PROMPT * 200, add_special_tokens=False)[: engine.max_model_len - 5]
    deltas = await _deltas(engine, GenerationRequest(f"contract-{next(_numbers)}", near, 100, GREEDY))
    assert deltas[-1].finish_reason == "length"
    assert 5 <= len(_ids(deltas)) <= 6


async def test_stats_name_what_every_engine_knows(engine: OwnedEngine) -> None:
    stats = engine.stats()
    assert {"running", "waiting", "kv_usage", "prefix_hit_rate"} <= set(stats)
    assert 0 <= stats["kv_usage"] <= 1
    assert 0 <= stats["prefix_hit_rate"] <= 1


async def test_prometheus_series_count_every_token_and_every_step(
    engine: OwnedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of steps are written late and together; nothing of them is lost."""
    summed: list[bool] = []

    def may_be_summed(step: Steps) -> bool:
        summed.append(step_statistics.may_be_summed(step))
        return summed[-1]

    monkeypatch.setattr(engine_metrics, "may_be_summed", may_be_summed)
    if isinstance(engine, FakeEngine):
        assert engine.registry is None
        return
    from vllm import envs

    assert hasattr(envs.__getattr__, "cache_info"), "vLLM reads the environment for every token"
    names = ("generation_tokens_total", "iteration_tokens_total_sum", "inter_token_latency_seconds_count")
    registry = engine.registry
    assert registry is not None

    def series() -> dict[str, float]:
        found = {sample.name: sample.value for family in registry.collect() for sample in family.samples}
        return {name: found[f"vllm:{name}"] for name in (*names, "iteration_tokens_total_count")}

    await asyncio.sleep(2 * engine_metrics.LATEST_S)  # steps of the tests before
    before = series()
    requests = [_request(engine, f"{number} {PROMPT}", max_tokens=40) for number in range(2)]
    made = [
        sum(len(delta.token_ids) for delta in deltas)
        for deltas in await asyncio.gather(*(_deltas(engine, one) for one in requests))
    ]
    assert made == [40, 40]
    await asyncio.sleep(2 * engine_metrics.LATEST_S)
    grown = {name: value - before[name] for name, value in series().items()}
    assert grown["generation_tokens_total"] == 80
    assert grown["inter_token_latency_seconds_count"] == 78
    assert 80 < grown["iteration_tokens_total_sum"] <= 80 + sum(len(one.prompt_ids) for one in requests)
    assert 40 <= grown["iteration_tokens_total_count"] <= 82
    assert summed.count(True) > 30


async def test_a_dead_engine_raises_in_flight_and_afterwards(service: EngineService, engine: OwnedEngine) -> None:
    """Last test of this module: it kills the engine."""
    reader = asyncio.create_task(_deltas(engine, _request(engine, max_tokens=1900)))
    await _until(engine, 1)
    if isinstance(engine, FakeEngine):
        engine.die()
    else:
        assert service.kill_processes(EngineRole.CHAT) >= 1
    with pytest.raises(EngineDead):
        async with asyncio.timeout(5):
            await reader
    assert not engine.alive
    with pytest.raises(EngineDead):
        await _deltas(engine, _request(engine))
