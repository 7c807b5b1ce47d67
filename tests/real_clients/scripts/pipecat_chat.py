"""Pipecat's services in a pipeline: a turn, an interruption, and the turn after it.

With the option `responses`: the service of the Responses WebSocket, else of chat completions.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMMessagesAppendFrame,
    LLMTextFrame,
    MetricsFrame,
)  # fmt: skip
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.responses.llm import OpenAIResponsesLLMService
from pipecat.workers.runner import WorkerRunner

asked = json.load(sys.stdin)
logger.remove()
logger.add(sys.stderr, level="WARNING")


class Voice(FrameProcessor):
    """Stands where the speech synthesis stands: takes the text."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.usage: list[Any] = []
        self.errors: list[str] = []
        self.some = asyncio.Event()
        self.ended = asyncio.Event()

    def reset(self) -> None:
        self.text = ""
        self.some.clear()
        self.ended.clear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self.text += frame.text
            if len(self.text) > 20:
                self.some.set()
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.ended.set()
        elif isinstance(frame, MetricsFrame):
            self.usage += [data.value.model_dump() for data in frame.data if isinstance(data, LLMUsageMetricsData)]
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        await self.push_frame(frame, direction)


def service() -> Any:
    if asked.get("responses"):
        url = asked["base_url"].replace("http", "ws", 1) + "/responses"
        settings = OpenAIResponsesLLMService.Settings(model=asked["model"])
        return OpenAIResponsesLLMService(api_key=asked["key"], ws_url=url, settings=settings)
    return OpenAILLMService(
        api_key=asked["key"], base_url=asked["base_url"], settings=OpenAILLMService.Settings(model=asked["model"])
    )


async def main() -> None:
    llm = service()
    context = LLMContext([{"role": "system", "content": "You speak with a caller. Be brief."}])
    users, assistant = LLMContextAggregatorPair(context)
    voice = Voice()
    params = PipelineParams(enable_metrics=True, enable_usage_metrics=True)
    worker = PipelineWorker(Pipeline([users, llm, voice, assistant]), params=params, cancel_on_idle_timeout=False)

    @worker.event_handler("on_pipeline_error")
    async def failed(_worker: Any, frame: ErrorFrame) -> None:
        voice.errors.append(frame.error)
        voice.some.set()
        voice.ended.set()

    async def say(text: str) -> None:
        voice.reset()
        message: Any = {"role": "user", "content": text}
        await worker.queue_frame(LLMMessagesAppendFrame([message], run_llm=True))

    async def conversation() -> dict[str, Any]:
        result: dict[str, Any] = {}
        await say("Hello! What do you bake?")
        await asyncio.wait_for(voice.ended.wait(), 60)
        result["first"] = voice.text
        await say("Tell me a long story of the sea.")
        await asyncio.wait_for(voice.some.wait(), 60)
        await worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.3)
        result["interrupted"] = voice.text
        began = time.monotonic()
        await say("Wait! Who is it about?")
        await asyncio.wait_for(voice.ended.wait(), 60)
        result["after"], result["after_s"] = voice.text, time.monotonic() - began
        await worker.queue_frame(EndFrame())
        return result

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    talking = asyncio.create_task(conversation())
    await runner.run()
    result = await talking
    messages = [{"role": each["role"], "content": each["content"]} for each in context.get_messages()]
    print(json.dumps(result | {"usage": voice.usage, "errors": voice.errors, "context": messages}))


asyncio.run(main())
