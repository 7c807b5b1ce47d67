"""The floor: a client that calls `AsyncLLM.generate` in a bare script, reads the deltas and drops them."""

from __future__ import annotations

import asyncio
import gc
import os
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from tests.benchmarks.lines import Line
from tests.benchmarks.prompts import Prompt


class RawEngine:
    """The engine, and prompts as the server builds them: token ids, ready before the clock starts."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        environ: Mapping[str, str],
        process_environ: Mapping[str, str],
        sampling: Mapping[str, Any],
    ) -> None:
        os.environ.update(environ)
        from vllm import AsyncEngineArgs, SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM

        from inference.engines.supervisor import temporary_environment
        from inference.engines.tokenizer import load_tokenizer
        from inference.prompting.chat_template import ChatFormat

        with temporary_environment(process_environ, keep=("LD_PRELOAD", "LOCAL_WORLD_SIZE", "NUMEXPR_MAX_THREADS")):
            self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._form = ChatFormat(load_tokenizer(arguments["model"]))
        self.params: Callable[[], Any] = partial(
            SamplingParams, output_kind=RequestOutputKind.DELTA, skip_clone=True, **sampling
        )
        self.tokens_input: Callable[[list[int]], Any] = tokens_input

    async def warm(self) -> None:
        """Generate one token, so that lazy initialisation is complete."""
        await self.llm.get_supported_tasks()
        line = RawLine(self)
        await line.say(Prompt("You are warm.", "Hello"))
        await line.arrived(1)
        line.cancel()
        await line.ended()
        gc.collect()
        gc.freeze()

    def ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt, equal to Yap's."""
        form = self._form
        return [*form.persona(prompt.persona), *form.turn(form.user(prompt.utterance, first=True), first=True)]


class RawLine(Line):
    """One caller of the engine."""

    def __init__(self, engine: RawEngine) -> None:
        super().__init__()
        self._engine = engine
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        return None

    async def say(self, prompt: Prompt, **more: Any) -> None:
        engine = self._engine
        given, params = engine.tokens_input(engine.ids(prompt)), engine.params()
        self._begin(perf_counter())
        self._task = asyncio.create_task(self._run(given, params))
        self._task.add_done_callback(self._never_begun)

    async def _run(self, given: Any, params: Any) -> None:
        tokens = 0
        timeline = self.timeline
        try:
            async for output in self._engine.llm.generate(given, params, uuid.uuid4().hex):
                said = output.outputs[0]
                if said.text:
                    self._content(perf_counter())
                tokens += len(said.token_ids)
                timeline.prompt_tokens = len(output.prompt_token_ids or ())
                timeline.cached_tokens = output.num_cached_tokens or 0
            timeline.tokens = tokens
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._end(perf_counter(), repr(error))
        self._end(perf_counter())

    def _never_begun(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # a request before its first step; a later one ends by itself
            self._end(perf_counter())

    def cancel(self) -> None:
        self.timeline.cancelled = perf_counter()
        assert self._task is not None
        self._task.cancel()

    async def close(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
