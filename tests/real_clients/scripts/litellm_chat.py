"""LiteLLM: a reply, and a stream with sampling that only some servers know."""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

asked = json.load(sys.stdin)
options: dict[str, Any] = {"model": f"openai/{asked['model']}", "api_base": asked["base_url"], "api_key": asked["key"]}
messages = [{"role": "user", "content": "Hello! What do you bake?"}]

plain = litellm.completion(messages=messages, **options)
stream = litellm.completion(
    messages=messages, stream=True, stream_options={"include_usage": True}, top_p=1, max_tokens=40,
    extra_body={"min_p": 0.1, "repetition_penalty": 1.1, "top_k": 0}, **options,
)  # fmt: skip
chunks = list(stream)
print(
    json.dumps(
        {
            "plain": plain.choices[0].message.content,
            "plain_reason": plain.choices[0].finish_reason,
            "usage": plain.usage.model_dump(),
            "stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
            "reasons": [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices],
            "stream_usage": [chunk.usage.model_dump() for chunk in chunks if getattr(chunk, "usage", None)],
        }
    )
)
