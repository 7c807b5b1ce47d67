"""The tools that a tool prompt defines: names and the schema of each tool's arguments, read from the JSON in its text.

Three forms are read: model cards' ``{"name", "description", "parameters"}``, OpenAI's ``{"type": "function",
"function": {…}}``, and example calls, ``{"name", "arguments"}``. A name counts only beside ``arguments`` or
``parameters``, so the values inside example arguments are no tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from inference.prompting.json_schemas import SchemaBudget, SchemaTooCostly
from personas.tool_snapshot import ToolSnapshot

MAX_CALLS = 4
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
MAX_JSON_STARTS = 500
MAX_SCANNED_CHARS = 200_000  # of beginnings that are no JSON: a prompt of brackets must not cost seconds
_MAX_DEPTH = 32

_IDENTIFIER = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_NAMED = re.compile(r'"name"\s*:\s*"([A-Za-z_][\w.-]{0,63})"\s*,\s*"(?:arguments|parameters)"')
_START = re.compile(r"[\[{]")
_ANY_OBJECT = {"type": "object"}
_ANY_NAME = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"}


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """One callable tool.

    Attributes:
        name: the name in a call.
        arguments: JSON schema of the arguments; :data:`NO_ARGUMENTS` where the tool shows none.
        description: text for a model.
    """

    name: str
    arguments: Mapping[str, Any]
    description: str = ""

    @property
    def has_arguments(self) -> bool:
        """Whether a call needs text from a model beyond its name."""
        return bool(self.arguments.get("properties")) or self.arguments.get("additionalProperties") is not False


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """The calls that an output may contain. Made by :func:`grammar`.

    Attributes:
        tools: sorted by name; empty where any name may be called.
        names: the names of these tools.
        max_calls: longest list.
        schema: JSON schema, as text, of a list of calls.
        schema_of_yes: the same for a list that is not empty.
    """

    tools: tuple[ToolDefinition, ...]
    names: frozenset[str]
    max_calls: int
    schema: str
    schema_of_yes: str

    def settled(self, text: str) -> list[dict[str, Any]] | None:
        """The calls of an output whose rest is determined by the grammar, or None while it is open.

        Args:
            text: the output so far, at least ``[{`` of it.
        """
        if not self.tools:
            return None
        calls, rest = _complete_calls(text)
        if rest is None or len(calls) >= self.max_calls:
            return calls if len(calls) >= self.max_calls else None
        possible = [tool for tool in self.tools if _may_be(rest, tool.name)]
        if len(possible) != 1 or possible[0].has_arguments or len(calls) + 1 < self.max_calls:
            return None
        return [*calls, {"name": possible[0].name, "arguments": {}}]


@lru_cache(maxsize=256)
def grammar_of(tool_prompt: str) -> CallGrammar:
    """Return the calls that a tool prompt allows."""
    return grammar(definitions(tool_prompt))


@lru_cache(maxsize=256)
def grammar_with_stored(tool_prompt: str, stored: tuple[ToolSnapshot, ...]) -> CallGrammar:
    """Return the calls that a tool prompt allows, with the arguments that operators defined for tools of these names
    where the prompt itself shows none."""
    schemas = {tool.name: orjson.loads(tool.parameters) for tool in stored if tool.parameters}
    return grammar(
        [
            tool
            if tool.has_arguments or tool.name not in schemas
            else defined_tool(tool.name, schemas[tool.name], tool.description)
            for tool in definitions(tool_prompt)
        ]
    )


def grammar(tools: Sequence[ToolDefinition], max_calls: int | None = None) -> CallGrammar:
    """Return the calls of these tools; none: of any tool.

    Args:
        tools: definitions.
        max_calls: longest list. None: once each where no tool has arguments, else :data:`MAX_CALLS`.
    """
    named = tuple(sorted({tool.name: tool for tool in tools}.values(), key=lambda tool: tool.name))
    budget = SchemaBudget()
    more = not named or any(tool.has_arguments for tool in named)
    most = max_calls or (MAX_CALLS if more else min(MAX_CALLS, len(named)))
    calls = [_call({"enum": [tool.name]}, _enforced(tool.arguments, budget)) for tool in named]
    calls = calls or [_call(_ANY_NAME, _ANY_OBJECT)]
    array = {"type": "array", "items": calls[0] if len(calls) == 1 else {"anyOf": calls}, "maxItems": most}
    schema, schema_of_yes = (orjson.dumps(each).decode() for each in (array, {**array, "minItems": 1}))
    return CallGrammar(named, frozenset(tool.name for tool in named), most, schema, schema_of_yes)


def definitions(tool_prompt: str) -> list[ToolDefinition]:
    """Return the tools that a prompt defines, or shows in example calls. A definition wins over examples."""
    defined: dict[str, tuple[Mapping[str, Any], str]] = {}
    shown: dict[str, list[Mapping[str, Any]]] = {}
    for value in _json_values(tool_prompt):
        for tool in _named_objects(value, 0):
            name, parameters = tool["name"], tool.get("parameters")
            if isinstance(parameters, dict):
                defined[name] = parameters, str(tool.get("description", ""))
            if isinstance(tool.get("arguments"), dict):
                shown.setdefault(name, []).append(tool["arguments"])
            shown.setdefault(name, [])
    for name in _NAMED.findall(tool_prompt):  # examples that are not strict JSON, such as {"name": "a", "arguments": …}
        shown.setdefault(name, [])
    return [
        defined_tool(name, *defined[name]) if name in defined else ToolDefinition(name, _of_examples(shown[name]))
        for name in sorted(defined.keys() | shown.keys())
    ]


def _call(name: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": name, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _enforced(arguments: Mapping[str, Any], budget: SchemaBudget) -> Mapping[str, Any]:
    """Return the schema that an engine enforces: any object where the tool's own schema costs too much."""
    try:
        return budget.bounded(arguments)
    except SchemaTooCostly:
        return _ANY_OBJECT


def _json_values(text: str) -> Iterator[Any]:
    decoder, position, left = json.JSONDecoder(), 0, MAX_SCANNED_CHARS
    for _ in range(MAX_JSON_STARTS):
        start = _START.search(text, position)
        if start is None or left < 0:
            return
        try:
            value, position = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            position = start.end()
            left -= error.pos - start.start()
        except (ValueError, RecursionError):  # a number of thousands of digits, or too many brackets
            position = start.end()
            left -= len(text) - start.start()
        else:
            yield value


def _named_objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and ("arguments" in value or "parameters" in value):
            if _IDENTIFIER.fullmatch(name):
                yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _named_objects(item, depth + 1)


def defined_tool(name: str, schema: Mapping[str, Any], description: str = "") -> ToolDefinition:
    """A tool by its definition. The schema is closed: a model that may add arguments does."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return ToolDefinition(name, NO_ARGUMENTS, description)
    return ToolDefinition(name, {"type": "object", "additionalProperties": False, **schema}, description)


def _of_examples(examples: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schema of the arguments that example calls show; a key that every example has is required."""
    properties: dict[str, Any] = {}
    for arguments in examples:
        for key, value in arguments.items():
            properties.setdefault(key, _type_of(value))
    if not properties:
        return NO_ARGUMENTS
    required = [key for key in properties if all(key in arguments for arguments in examples)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _type_of(value: Any) -> dict[str, Any]:
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next(({"type": name} for kind, name in kinds if isinstance(value, kind)), {})


def _complete_calls(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """The complete calls of an output, and the text of the call that is being written; None where none is."""
    decoder = json.JSONDecoder()
    calls: list[dict[str, Any]] = []
    rest = text.lstrip()[1:].lstrip()
    while rest.startswith("{"):
        try:
            call, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return calls, rest
        calls.append(call)
        rest = rest[end:].lstrip().removeprefix(",").lstrip()
    return calls, None


def _may_be(rest: str, name: str) -> bool:
    """Whether the call that begins with ``rest`` can still be one of ``name``."""
    begun = re.match(r'\{\s*(?:"name"\s*:\s*"([^"]*)("?))?', rest)
    if begun is None or begun[1] is None:
        return True
    return begun[1] == name if begun[2] else name.startswith(begun[1])
