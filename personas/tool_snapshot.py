"""Frozen copies of tools and of the classifier head for the serving path. No Django."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolSnapshot:
    """One enabled tool.

    Attributes:
        name: the name in the ``toolcall`` frame.
        description: text for a model.
        parameters: JSON text of the arguments' schema; None: the tool has no arguments.
        personas: slugs of the personas that have the tool; None: every persona has it.
    """

    name: str
    description: str = ""
    parameters: str | None = None
    personas: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ToolHeadSnapshot:
    """The classifier head in force, as stored.

    Attributes:
        number: the row's number; equal numbers have equal ``data``.
        data: the head's ``.npz`` content.
        threshold: probability of yes from which a tool is called.
    """

    number: int
    data: bytes
    threshold: float


def tools_of(tools: tuple[ToolSnapshot, ...], slug: str | None) -> tuple[ToolSnapshot, ...]:
    """The tools in force for a persona; ``slug`` None: a client's own prompt, which has the global tools alone."""
    return tuple(tool for tool in tools if tool.personas is None or (slug is not None and slug in tool.personas))
