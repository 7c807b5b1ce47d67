"""Schemas of clients, bounded by what they cost an engine."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from inference.prompting.json_schemas import MAX_DEPTH, MAX_PATTERN, SchemaBudget, SchemaTooCostly, pattern_cost
from inference.prompting.tool_definitions import defined_tool, grammar, grammar_of


def text(**rules: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", **rules}}, "required": ["a"]}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BOMBS: dict[str, dict[str, Any]] = {
    "optional characters": text(pattern="^" + ".?" * 128 + "$"),
    "a long repeat": text(pattern="^.{0,1000}$"),
    "nested repeats": text(pattern="^((a{1,100}){1,100}){1,100}$"),
    "brackets": text(pattern="(" * 10_000),
    "many patterns": {"type": "object", "properties": {f"a{n}": text(pattern=".{0,16}") for n in range(40)}},
    "names of properties": {"type": "object", "patternProperties": {".{0,1000}": {}}},
    "nested lists": nested(800),
    "properties": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(300)}},
    "nodes": {"enum": ["x"] * 10_000},
    "branches": {"anyOf": [text()] * 200},
    "branches of branches": {"anyOf": [{"anyOf": [text()] * 16}] * 16},
    "bounds": {"anyOf": [{"type": "integer", "minimum": 10**17 + n} for n in range(100)]},
    "text": text(description="x" * 300_000),
}
ORDINARY: tuple[dict[str, Any], ...] = (
    text(pattern=r"^[\w.+-]+@[\w-]+\.[\w.-]+$"),
    text(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
    text(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$", format="date-time", maxLength=40, minLength=1),
    {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 100}, "minItems": 1, "maxItems": 50},
    {"type": "object", "properties": {"pattern": {"type": "string"}, "maxLength": {"type": "integer"}}},
    {"enum": ["a", "b", None, 5], "maxLength": True},
    nested(MAX_DEPTH // 2),
)


@pytest.mark.parametrize("name", BOMBS)
def test_what_costs_an_engine_seconds_is_refused_in_milliseconds(name: str) -> None:
    took: list[float] = []
    for _ in range(3):  # a garbage collection of the whole process may fall into one
        began = time.process_time()
        with pytest.raises(SchemaTooCostly):
            SchemaBudget().bounded(BOMBS[name])
        took.append(time.process_time() - began)
    assert min(took) < 0.1


@pytest.mark.parametrize("schema", ORDINARY)
def test_ordinary_schemas_stay_as_they_are(schema: dict[str, Any]) -> None:
    assert SchemaBudget().bounded(schema) == schema


def test_long_limits_are_left_out() -> None:
    given = text(maxLength=500, minLength=100, format="uri-template") | {"minProperties": 1, "maxProperties": 30}
    assert SchemaBudget().bounded(given) == text() | {"minProperties": 1}
    assert SchemaBudget().bounded({"type": "array", "maxItems": 1e9}) == {"type": "array"}


def test_the_schemas_of_one_request_share_a_budget() -> None:
    budget = SchemaBudget()
    budget.bounded({"enum": ["x"] * 4000})
    with pytest.raises(SchemaTooCostly, match="nodes"):
        budget.bounded({"enum": ["x"] * 4000})


@pytest.mark.parametrize(
    ("pattern", "cost"),
    [
        (r"\d{4}-\d{2}", 7), ("(ab?){3}", 18), (".{0,10}", 40), ("a*", 4), ("a+", 5), ("a+?", 5), ("a{2,}", 6),
        ("[]a]{3}", 3), (r"[\]]{3}", 3), ("(?:a|b)c", 6), ("a{,5}", 5), ("a{x}", 4), ("", 0), ("[", 1), ("\\", 1),
    ],
)  # fmt: skip
def test_costs_of_patterns(pattern: str, cost: int) -> None:
    assert pattern_cost(pattern) == cost


@pytest.mark.parametrize("pattern", ["(" * 100_000, "x" * 10**6, "[" * 100_000, "a{1" * 10**5, "\\" * 10**5])
def test_a_long_pattern_is_judged_at_once(pattern: str) -> None:
    began = time.process_time()
    cost = pattern_cost(pattern)
    assert time.process_time() - began < 0.05
    assert cost > MAX_PATTERN or pattern.startswith("[")  # one class


# -- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in ("text", "nodes")])
def test_a_tool_with_a_costly_schema_takes_any_arguments(name: str) -> None:
    bomb = {"type": "object", "properties": {"a": BOMBS[name]}}
    made = grammar([defined_tool("bomb", bomb), defined_tool("plain", text())])
    first, second = orjson.loads(made.schema)["items"]["anyOf"]
    assert first["properties"]["arguments"] == {"type": "object"}
    assert second["properties"]["arguments"]["required"] == ["a"]


def test_a_tool_prompt_of_many_arguments_takes_any() -> None:
    example = {"name": "a", "arguments": {f"k{n}": 1 for n in range(2000)}}
    made = grammar_of(f"Call tools as {orjson.dumps(example).decode()}")
    assert orjson.loads(made.schema)["items"]["properties"]["arguments"] == {"type": "object"}
