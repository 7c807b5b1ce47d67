"""LiveKit's LLMs: a turn, an interruption by closing the stream, the turn after it, and a tool call.

With the option `responses`: `openai.responses.LLM` over its WebSocket, else `openai.LLM`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from livekit.agents import llm
from livekit.agents.utils import http_context
from livekit.plugins import openai

asked = json.load(sys.stdin)


@llm.function_tool
async def take_screenshot() -> str:
    """Takes a screenshot of the user's screen."""
    return "a weather page"


async def main() -> None:
    where = {"model": asked["model"], "base_url": asked["base_url"], "api_key": asked["key"]}
    model = openai.responses.LLM(**where, use_websocket=True) if asked.get("responses") else openai.LLM(**where)
    model.prewarm()
    context = llm.ChatContext.empty()
    context.add_message(role="system", content="You speak with a caller. Be brief.")
    result: dict[str, Any] = {}

    context.add_message(role="user", content="Hello! What do you bake?")
    first = await model.chat(chat_ctx=context).collect()
    result["first"], result["usage"] = first.text, first.usage.model_dump() if first.usage else None
    context.add_message(role="assistant", content=first.text)

    context.add_message(role="user", content="Tell me a long story of the sea.")
    heard = ""
    async with model.chat(chat_ctx=context) as stream:
        async for chunk in stream:
            heard += (chunk.delta.content or "") if chunk.delta else ""
            if len(heard) > 20:
                break
    result["interrupted"] = heard
    context.add_message(role="assistant", content=heard, interrupted=True)

    context.add_message(role="user", content="Wait! Who is it about?")
    after = await model.chat(chat_ctx=context).collect()
    result["after"], result["cached"] = after.text, after.usage.prompt_cached_tokens if after.usage else None

    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Take a screenshot and look at my screen now, please.")
    called = await model.chat(chat_ctx=context, tools=[take_screenshot]).collect()
    result["tool"] = {"calls": [(call.name, call.arguments) for call in called.tool_calls], "text": called.text}
    await model.aclose()
    print(json.dumps(result))


async def with_http_session() -> None:
    async with http_context.open():
        await main()


asyncio.run(with_http_session())
