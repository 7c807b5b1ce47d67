"""Tools and response formats of a request: the calls that the tool engine may write, and the schema of a reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from inference.failures import SCHEMA_REFUSED
from inference.openai.errors import invalid
from inference.phrases.automaton import PhraseAutomaton
from inference.phrases.guard import PhraseGuard
from inference.prompting.json_schemas import MAX_DEPTH, SchemaBudget, SchemaTooCostly
from inference.prompting.tool_definitions import CallGrammar, defined_tool, grammar
from inference.prompting.tool_prompt import prompt_of_tools
from personas.tool_snapshot import ToolSnapshot

MAX_TOOLS = 128  # as OpenAI allows
MAX_SCHEMA_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True)
class RequestTools:
    """The tools of one request.

    Args:
        prompt: the question for the tool engine.
        grammar: the calls that the output may contain.
        required: the decision is yes already; the engine only writes the call.
    """

    prompt: str
    grammar: CallGrammar
    required: bool = False


def decode_tools(fields: Mapping[str, Any]) -> RequestTools | None:
    """Decode ``tools`` and ``tool_choice``, in the form of chat completions or of responses.

    Returns:
        The tools; None where the request has none.

    Raises:
        OpenAIError: a tool that cannot be called, too many tools, or a choice of an unknown tool.
    """
    tools, choice = fields.get("tools"), fields.get("tool_choice")
    if not tools:
        return None
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise invalid(f"tools must be a list of at most {MAX_TOOLS} tools", "tools")
    budget = SchemaBudget()
    read = (_tool(item, f"tools[{number}]", budget) for number, item in enumerate(tools))
    found = [tool for tool in read if tool is not None]
    required = choice == "required"
    if isinstance(choice, dict):
        names, required = _chosen(choice)
        if names is not None:
            found = [tool for tool in found if tool.name in names]
            if not found:
                raise invalid("tool_choice names a tool that is not in tools", "tool_choice")
    if not found:
        return None
    definitions = [defined_tool(tool.name, orjson.loads(tool.parameters or "{}"), tool.description) for tool in found]
    return RequestTools(prompt_of_tools(found), grammar(definitions, max_calls=1), required)


def _chosen(choice: Mapping[str, Any]) -> tuple[set[str] | None, bool]:
    """Return the names that an object in ``tool_choice`` allows (None: all), and whether a call is required."""
    name = _inner(choice, "function").get("name")
    if name is not None:
        return {str(name)}, True
    allowed = _inner(choice, "allowed_tools")
    required, tools = allowed.get("mode") == "required", allowed.get("tools")
    if not isinstance(tools, list):
        return None, required
    return {str(_inner(tool, "function").get("name")) for tool in tools if isinstance(tool, dict)}, required


def forbids_calls(fields: Mapping[str, Any]) -> bool:
    """Whether ``tool_choice`` forbids calls. Requests with the same tools share their records either way."""
    return fields.get("tool_choice") == "none"


def _tool(item: Any, param: str, budget: SchemaBudget) -> ToolSnapshot | None:
    """Return one tool; None for a tool of another kind, which only OpenAI's own servers run."""
    if not isinstance(item, dict):
        raise invalid("a tool is an object", param)
    if item.get("type", "function") != "function":
        return None
    function = _inner(item, "function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid("a tool's name has at most 64 letters, digits, _ and -", f"{param}.function.name")
    if parameters is not None and not isinstance(parameters, dict):
        raise invalid("a tool's parameters are a JSON schema, an object", f"{param}.function.parameters")
    schema = self_contained(parameters or {}, f"{param}.function.parameters", budget)
    text = orjson.dumps(schema).decode() if schema.get("properties") else None
    return ToolSnapshot(name, str(function.get("description") or ""), text)


def _inner(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object that chat completions put around the fields; responses have the fields themselves."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else value


def json_schema_of(value: Any) -> str | None:
    """Return the schema of ``response_format`` or ``text.format`` as JSON text; None for free text.

    Raises:
        OpenAIError: the schema is not an object, or too large, or costs an engine too much.
    """
    if not isinstance(value, dict):
        return None
    if value.get("type") == "json_object":
        return _ANY_OBJECT
    if value.get("type") != "json_schema":
        return None
    inner = _inner(value, "json_schema")
    schema = inner.get("schema")
    if not isinstance(schema, dict):
        raise invalid("response_format needs a JSON schema, an object", "response_format")
    try:
        text = orjson.dumps(SchemaBudget().bounded(schema))
    except SchemaTooCostly as error:
        raise invalid(f"the JSON schema is too complex: {error}", "response_format", SCHEMA_REFUSED) from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise invalid(f"the JSON schema may have at most {MAX_SCHEMA_BYTES} bytes", "response_format")
    return text.decode()


def self_contained(schema: Mapping[str, Any], param: str, budget: SchemaBudget) -> dict[str, Any]:
    """Return a schema without ``$ref``: the grammar of a call holds the schema at another depth.

    Args:
        schema: a tool's parameters.
        param: the field's name in errors.
        budget: what the schemas of the request may cost; each use of a definition counts.

    Raises:
        OpenAIError: the schema is too large, or refers to itself.
    """

    def copied(value: Any, depth: int) -> Any:
        budget.spend("nodes")
        if depth > MAX_DEPTH:
            raise SchemaTooCostly(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, str):
            budget.spend("characters", len(value))
        if isinstance(value, list):
            return [copied(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        budget.spend("characters", sum(map(len, value)))
        target = value.get("$ref")
        if isinstance(target, str):
            return copied(_referred(schema, target, param), depth + 1)
        return {key: copied(item, depth + 1) for key, item in value.items() if key not in ("$defs", "definitions")}

    try:
        result: dict[str, Any] = copied(dict(schema), 0)
    except SchemaTooCostly as error:
        raise invalid(f"the JSON schema is too large or refers to itself: {error}", param) from None
    return result


def _referred(schema: Mapping[str, Any], target: str, param: str) -> Any:
    found: Any = schema
    for part in target.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if not target.startswith("#/") or not isinstance(found, dict):
        raise invalid("the JSON schema has a $ref that it does not define", param)
    return found


def without_phrases(value: Any, automaton: PhraseAutomaton) -> Any:
    """Return tool arguments with the banned phrases cut out of every text."""
    if isinstance(value, dict):
        return {key: without_phrases(item, automaton) for key, item in value.items()}
    if isinstance(value, list):
        return [without_phrases(item, automaton) for item in value]
    if not isinstance(value, str):
        return value
    guard = PhraseGuard(automaton)
    released, hit = guard.feed(value)
    while hit is not None:
        more, hit = guard.skip()
        released += more
    more, hit = guard.finish()
    while hit is not None:
        released += more
        more, hit = guard.skip()
    return released + more
