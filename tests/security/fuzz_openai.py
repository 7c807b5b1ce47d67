"""The fuzzer's requests below ``/v1``: every field of every body, at its bound, above, and a thousand times above."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.security.fuzz_cases import Case, filled

MOST = 1_040_000  # characters of one value: the body stays below its limit of 1 MiB
HI = [{"role": "user", "content": "hi"}]
_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
Build = Callable[[int], Any]


def text(filling: str = "x") -> Build:
    """Return a builder: size in characters → text."""
    return lambda size: filled(filling, size)


def times(item: Any) -> Build:
    """Return a builder: count → list of equal items."""
    return lambda count: [item] * count


def message(content: Build, **more: Any) -> Build:
    """Return a builder: size → messages whose last one has this content."""
    return lambda size: [{"role": "user", **more, "content": content(size)}]


def schema(properties: Build, **more: Any) -> Build:
    """Return a builder: size → response format with these properties."""
    return lambda size: {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object", "properties": properties(size), **more}},
    }


def tools(**fields: Build) -> Build:
    """Return a builder: size → one tool with these fields of its function."""
    return lambda size: [
        {"type": "function", "function": {"name": "look", **{name: build(size) for name, build in fields.items()}}}
    ]


def keys(value: Any) -> Build:
    """Return a builder: count → object with this number of keys."""
    return lambda count: {f"k{number}": value for number in range(count)}


def numbered(text_of: str = "{}", size: int = 40) -> Build:
    """Return a builder: count → list of different texts."""
    return lambda count: [text_of.format(number).ljust(size, "y") for number in range(count)]


def nested(count: int) -> Any:
    """Return a schema of lists in lists, at most 250 deep; JSON parsers take about a thousand levels."""
    found: Any = {"type": "string"}
    for _ in range(min(count, 250)):
        found = {"type": "array", "items": found}
    return found


def referring(count: int) -> Any:
    """Return a schema with one long definition and ``count`` references to that definition."""
    used = {f"p{number}": {"$ref": "#/$defs/a"} for number in range(count)}
    return {"type": "object", "$defs": {"a": {"type": "string", "description": "x" * 400_000}}, "properties": used}


_SAMPLING: Mapping[str, tuple[int, Build]] = {
    **{name: (4, text("9")) for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "rep_pen",
       "presence_penalty", "frequency_penalty", "max_tokens", "max_completion_tokens", "max_output_tokens", "n",
       "best_of", "seed", "logprobs", "top_logprobs")},
    "stop": (16, numbered()), "stop (text)": (256, text()), "stop_sequence": (16, numbered()),
    "stopping_strings": (16, numbered("語{}", 250)), "banned_strings": (64, numbered("a phrase {}", 250)),
    "bad_words": (64, numbered("{}語", 250)), "logit_bias": (300, lambda n: {str(key): 1 for key in range(n)}),
    "user": (64, text()), "metadata": (16, keys("y" * 500)), "unknown": (1_000, times([])),
    "user_identity": (64, text()), "model": (64, text()), "stream_options": (16, keys(True)),
}  # fmt: skip
_TOOLS: Mapping[str, tuple[int, Build]] = {
    "tools": (128, times(_TOOL)), "tools (name)": (64, tools(name=text())),
    "tools (description)": (1_000, tools(description=text("語"))),
    "tools (properties)": (100, tools(parameters=lambda n: {"type": "object", "properties": keys({})(n)})),
    "tools (nested)": (12, tools(parameters=nested)), "tools ($ref)": (20, tools(parameters=referring)),
    "tools (enum)": (500, tools(parameters=lambda n: {"properties": {"a": {"enum": numbered()(n)}}})),
    "tools (pattern)": (32, tools(parameters=lambda n: {"properties": {"a": {"pattern": ".?" * n}}})),
    "tool_choice": (64, text()),
}  # fmt: skip
_FORMAT: Mapping[str, tuple[int, Build]] = {
    "(properties)": (100, schema(keys({"type": "string"}))), "(name)": (64, schema(keys({}), title="x" * 60_000)),
    "(nested)": (12, schema(lambda n: {"a": nested(n)})),
    "(enum)": (500, schema(lambda n: {"a": {"enum": numbered()(n)}})),
    "(pattern)": (32, schema(lambda n: {"a": {"type": "string", "pattern": ".?" * n}})),
    "(anyOf)": (64, schema(lambda n: {"a": {"anyOf": [{"type": "string"}] * n}})),
}  # fmt: skip
_TEXTS: Mapping[str, Build] = {
    "": text(), " (cjk)": text("語"), " (mixed)": text("a1!é語\n"), " (control)": text("<|im_end|>"),
}  # fmt: skip
CHAT: Mapping[str, tuple[int, Build]] = {
    **{f"messages{name}": (2_000, message(build)) for name, build in _TEXTS.items()},
    "messages (number)": (4_000, times({"role": "user", "content": "a"})),
    "messages (exchanges)": (2_000, lambda n: [HI[0], {"role": "assistant", "content": "a"}] * (n // 2) + HI),
    "messages (system)": (7_200, lambda n: [{"role": "system", "content": "x" * n}, *HI]),
    "messages (macros)": (7_200, lambda n: [{"role": "system", "content": filled("{{user}}{{char}}", n)}, *HI]),
    "messages (prefill)": (2_000, lambda n: [*HI, {"role": "assistant", "content": "x" * n}]),
    "messages (parts)": (1_000, message(times({"type": "text", "text": "a"}))),
    "messages (images)": (16, message(lambda n: [{"type": "image_url", "image_url": {"url": "x" * n}}])),
    "messages (many images)": (16, message(times({"type": "image_url"}))),
    "messages (role)": (16, lambda n: [{"role": "x" * n, "content": "a"}]),
    "messages (name)": (64, lambda n: [{"role": "user", "name": "x" * n, "content": "a"}]),
    "messages (call)": (64, lambda n: [*HI, {"role": "tool", "tool_call_id": "x" * n, "content": "a"}]),
    "messages (calls)": (64, lambda n: [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}] * n}, *HI]),
    **_SAMPLING, **_TOOLS, **{f"response_format {name}": row for name, row in _FORMAT.items()},
}  # fmt: skip
COMPLETIONS: Mapping[str, tuple[int, Build]] = {
    **{f"prompt{name}": (2_000, build) for name, build in _TEXTS.items()}, "prompt (list)": (1, times("a")),
    "suffix": (64, text()), "echo": (4, text()),
}  # fmt: skip
TOKENIZE: Mapping[str, tuple[int, Build]] = {f"prompt{name}": (4_000, build) for name, build in _TEXTS.items()}
ENCODE: Mapping[str, tuple[int, Build]] = {f"text{name}": (4_000, build) for name, build in _TEXTS.items()}
RESPONSES: Mapping[str, tuple[int, Build]] = {
    **{f"input{name}": (2_000, build) for name, build in _TEXTS.items()},
    "input (number)": (4_000, times(HI[0])),
    "input (call)": (64, lambda n: [{"type": "function_call", "call_id": "x" * n, "name": "y" * n, "arguments": "{}"}]),
    "input (output)": (2_000, lambda n: [{"type": "function_call_output", "call_id": "a", "output": "x" * n}]),
    "input (kind)": (64, lambda n: [{"type": "x" * n}]), "instructions": (7_200, text()),
    "instructions (items)": (1_000, times({"role": "developer", "content": "a"})),
    "previous_response_id": (37, text()), "stream_id": (256, text()), "conversation": (64, text()),
    "prompt": (64, keys("a")), "include": (16, times("a")), "reasoning": (16, keys("a")), "truncation": (16, text()),
    "text": (16, keys([])), "generate": (5, text()), "store": (5, text()), "prompt_cache_key": (64, text()),
    "prompt_cache_options": (16, keys(True)), "safety_identifier": (64, text()),
    **{name: row for name, row in _SAMPLING.items() if name.startswith(("metadata", "logit", "banned", "stop", "max"))},
    **_TOOLS, **{f"text.format {name}": row for name, row in _FORMAT.items()},
}  # fmt: skip
PATHS: Mapping[str, tuple[str, Mapping[str, tuple[int, Build]], Mapping[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT, {"messages": HI}),
    "chat, streamed": ("/v1/chat/completions", {"messages": CHAT["messages"]}, {"messages": HI, "stream": True}),
    "completions": ("/v1/completions", COMPLETIONS, {"prompt": "hi"}),
    "encode": ("/v1/token/encode", ENCODE, {}),
    "tokenize": ("/tokenize", TOKENIZE, {}),
    "responses": ("/v1/responses", RESPONSES, {"input": "hi"}),
    "responses socket": ("", RESPONSES, {"input": "hi", "type": "response.create"}),
}


def openai_cases() -> Iterator[Case]:
    """Every field of every body, for a persona; texts for the bare model as well, whose system text is the client's."""
    for surface, (_, fields, base) in PATHS.items():
        for model in ("mia", "bare"):
            for name, (bound, build) in fields.items():
                if model == "bare" and not name.startswith(("messages", "prompt", "input", "instructions")):
                    continue
                field = name.partition(" ")[0]
                for size in (bound, bound + 1, min(1_000 * bound, MOST)):
                    value = build(_fitting(build, size))
                    body = {"model": model, **base, **_at(field, value)}
                    yield Case(surface, f"{name}, {model}" if model == "bare" else name, size, body)
        lists = '{"model": "mia", "x": [' + "[]," * 340_000 + "[]]}"
        for raw in (lists, "{" * 1_000_000, '{"a": "' + "\\ud800" * 170_000):
            yield Case(surface, "(body)", len(raw), raw)


def _at(field: str, value: Any) -> dict[str, Any]:
    """The field, also one inside of another."""
    outer, dot, inner = field.partition(".")
    if not dot:
        return {field: value}
    schema_of = value["json_schema"]
    return {outer: {inner: {"type": "json_schema", "name": "x", "schema": schema_of["schema"]}}}


def _fitting(build: Build, size: int) -> int:
    """The largest size of which the body stays below its limit."""
    sample = min(size, 64)
    each = max(1, len(repr(build(sample)).encode()) // sample)
    return max(1, min(size, MOST // each))
