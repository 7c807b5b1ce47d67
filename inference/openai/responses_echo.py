"""The fields of a request that its response repeats, as far as OpenAI's types allow them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_METADATA = 16
MAX_METADATA_CHARS = 512


def echoed_metadata(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the client's metadata."""
    found = body.get("metadata")
    pairs = found.items() if isinstance(found, dict) else ()
    valid = [(name, text) for name, text in pairs if isinstance(text, str) and len(text) <= MAX_METADATA_CHARS]
    return dict(valid[:MAX_METADATA])


def echoed_tools(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the client's function tools in the flat form."""
    tools = body.get("tools")
    found = []
    for tool in tools if isinstance(tools, list) else ():
        inner = tool.get("function") if isinstance(tool, dict) and isinstance(tool.get("function"), dict) else tool
        if not isinstance(inner, dict) or tool.get("type", "function") != "function":
            continue
        parameters, description, strict = (inner.get(name) for name in ("parameters", "description", "strict"))
        found.append(
            {
                "type": "function",
                "name": inner.get("name"),
                "description": description if isinstance(description, str) else None,
                "parameters": parameters if isinstance(parameters, dict) else None,
                "strict": strict if isinstance(strict, bool) else None,
            }
        )
    return found


def echoed_choice(body: Mapping[str, Any]) -> object:
    """Return the client's ``tool_choice``: a word, or one function."""
    choice = body.get("tool_choice")
    if choice in ("none", "auto", "required"):
        return choice
    if isinstance(choice, dict):
        inner = _inner(choice, "function")
        if choice.get("type") == "function" and isinstance(inner.get("name"), str):
            return {"type": "function", "name": inner["name"]}
    return "auto"


def echoed_format(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client's format of the text; free text where there is none."""
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return {"type": "text"}
    if form["type"] == "json_object":
        return {"type": "json_object"}
    inner = _inner(form, "json_schema")
    name, schema, strict = (inner.get(key) for key in ("name", "schema", "strict"))
    return {
        "type": "json_schema",
        "name": name if isinstance(name, str) else "response",
        "schema": schema if isinstance(schema, dict) else {},
        "strict": strict if isinstance(strict, bool) else None,
    }


def _inner(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object in a field, as Chat Completions nests it; the fields themselves where there is none."""
    nested = fields.get(name)
    return nested if isinstance(nested, dict) else fields
