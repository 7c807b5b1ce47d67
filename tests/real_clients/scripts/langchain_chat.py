"""LangChain's ChatOpenAI: a reply, a stream, and structured output."""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

asked = json.load(sys.stdin)
chat = ChatOpenAI(model=asked["model"], base_url=asked["base_url"], api_key=asked["key"], temperature=0, max_tokens=60)


class Cake(BaseModel):
    """A cake."""

    name: str
    price: int


said = [("system", "You are brief."), ("human", "Hello! What do you bake?")]
reply = chat.invoke(said)
streamed = list(chat.stream(said, stream_usage=True))
cake = chat.with_structured_output(Cake, method="json_schema").invoke("Name one cake and its price in euros.")
print(
    json.dumps(
        {
            "reply": reply.content,
            "usage": reply.usage_metadata,
            "reason": reply.response_metadata["finish_reason"],
            "stream": "".join(str(chunk.content) for chunk in streamed),
            "stream_usage": [chunk.usage_metadata for chunk in streamed if chunk.usage_metadata],
            "cake": cake.model_dump() if isinstance(cake, Cake) else None,
        }
    )
)
