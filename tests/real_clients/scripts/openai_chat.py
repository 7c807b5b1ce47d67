"""The `openai` package: models, a conversation, a stream, an interruption, and refusals."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from openai import AuthenticationError, NotFoundError, OpenAI

asked = json.load(sys.stdin)
client = OpenAI(base_url=asked["base_url"], api_key=asked["key"])
result: dict[str, Any] = {}

result["models"] = [model.id for model in client.models.list()]
result["model"] = client.models.retrieve(asked["model"]).to_dict()

messages: list[Any] = [{"role": "user", "content": "Hello! What do you bake?"}]
first = client.chat.completions.create(model=asked["model"], messages=messages)
result["first"] = first.to_dict()

messages += [
    {"role": "assistant", "content": first.choices[0].message.content},
    {"role": "user", "content": "And what is the best of it?"},
]
began = time.monotonic()
text, chunks, usage, reason, ids = "", 0, None, None, set()
with client.chat.completions.create(
    model=asked["model"], messages=messages, stream=True, stream_options={"include_usage": True}, temperature=0
) as stream:
    result["request_id"] = stream.response.headers.get("x-request-id")
    for chunk in stream:
        ids.add(chunk.id)
        chunks += 1
        usage = chunk.usage.to_dict() if chunk.usage else usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
result["stream"] = {
    "text": text, "chunks": chunks, "usage": usage, "finish_reason": reason, "ids": len(ids),
    "seconds": time.monotonic() - began,
}  # fmt: skip

with client.chat.completions.create(
    model=asked["model"], messages=[{"role": "user", "content": "Tell me a long story."}], stream=True
) as stream:
    heard = ""
    for chunk in stream:
        heard += chunk.choices[0].delta.content or ""
        if len(heard) > 20:
            break
result["interrupted"] = heard
after = client.chat.completions.create(
    model=asked["model"],
    messages=[
        {"role": "user", "content": "Tell me a long story."},
        {"role": "assistant", "content": heard},
        {"role": "user", "content": "Wait! Who is it about?"},
    ],
)
result["after"] = after.choices[0].message.content

plain = client.chat.completions.create(
    model=asked["model"], messages=[{"role": "user", "content": "Hello!"}], max_tokens=5, stop=["zzz"]
)
result["short"] = plain.to_dict()

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
except NotFoundError as error:
    result["unknown_model"] = {"code": error.code, "message": str(error)}
try:
    OpenAI(base_url=asked["base_url"], api_key="wrong", max_retries=0).models.list()
except AuthenticationError as error:
    result["wrong_key"] = {"code": error.code, "status": error.status_code}

print(json.dumps(result))
