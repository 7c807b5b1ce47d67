"""The openai package on the Responses API: whole, streamed, and over its WebSocket with a continued response."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openai import AsyncOpenAI

asked = json.load(sys.stdin)


async def main() -> None:
    result: dict[str, Any] = {}
    async with AsyncOpenAI(base_url=asked["base_url"], api_key=asked["key"], max_retries=0) as client:
        whole = await client.responses.create(model=asked["model"], input="Hello! What do you bake?")
        result["whole"] = whole.model_dump(mode="json")
        text, kinds = "", []
        stream = await client.responses.create(
            model=asked["model"], input="And what is the best?", previous_response_id=whole.id, stream=True
        )
        async for sent in stream:
            kinds.append(sent.type)
            if sent.type == "response.output_text.delta":
                text += sent.delta
            elif sent.type == "response.completed":
                result["streamed"] = sent.response.model_dump(mode="json")
        result["text"], result["kinds"] = text, kinds
        async with client.responses.connect() as line:
            await line.response.create(model=asked["model"], input="Tell me a story of the sea.", store=False)
            heard = ""
            async for event in line:
                if event.type == "response.created":
                    identity = event.response.id
                elif event.type == "response.output_text.delta":
                    heard += event.delta
                    if len(heard) > 20:
                        break
            await line.send_raw(json.dumps({"type": "response.cancel", "response_id": identity}))
            async for event in line:
                if event.type in ("response.completed", "response.incomplete", "response.failed"):
                    result["cancelled"] = event.type
                    break
            await line.response.create(
                model=asked["model"], input="Wait! Who is it about?", previous_response_id=identity, store=False
            )
            async for event in line:
                if event.type == "response.completed":
                    result["after"] = event.response.output_text
                    break
    print(json.dumps(result))


asyncio.run(main())
