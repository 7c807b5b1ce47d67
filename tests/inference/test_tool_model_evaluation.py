"""The evaluation asks a model as turns do: the same prompt, history, grammar, score and threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import call_command

from inference.engines.base import EngineRole, GenerationRequest
from inference.prompting.prompt_limits import PromptLimits
from inference.tool_classifier.evaluation import Outcome
from inference.tool_decision import ToolPolicy
from inference.tool_model_evaluation import decide_by_model
from personas.snapshot import Catalogue, PersonaSnapshot
from personas.tool_files import LabelledLine
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from yapserver.management.commands import evaluate_tool

YES = '[{"name": "take_screenshot", "arguments": {}}]'
LINES = [LabelledLine("look at my screen", "take_screenshot"), LabelledLine("hi"), LabelledLine("the screen broke")]


def says_yes_to_screens(request: GenerationRequest) -> str:
    asked = tiny_tokenizer().decode(list(request.prompt_ids)).rsplit("<|im_start|>user", 1)[1]
    return YES if "screen" in asked else "[]"


async def outcomes(
    engine: FakeEngine, lines: Sequence[LabelledLine] = LINES, persona: PersonaSnapshot | None = None, **policy: float
) -> list[Outcome]:
    return await decide_by_model(
        engine,
        lines,
        catalogue=Catalogue(),
        persona=persona,
        limits=PromptLimits(),
        policy=replace(ToolPolicy(hard_timeout_s=None), **policy),  # type: ignore[arg-type]
    )


async def test_every_line_is_decided_with_its_score() -> None:
    found = await outcomes(FakeEngine(EngineRole.TOOL, says_yes_to_screens))
    assert [(o.tool, o.score) for o in found] == [("take_screenshot", 1.0), ("", 0.0), ("take_screenshot", 1.0)]
    assert [o.right for o in found] == [True, True, False]
    assert all(o.milliseconds > 0 for o in found)


async def test_the_history_is_in_the_prompt_and_of_one_line_only() -> None:
    engine = FakeEngine(EngineRole.TOOL, "[]")
    await outcomes(engine, [LabelledLine("and this?", "", "User: see the marmot\nAssistant: cute"), LabelledLine("hi")])
    prompts = [tiny_tokenizer().decode(list(request.prompt_ids)) for request in engine.requests[1:]]
    assert ["marmot" in prompt for prompt in prompts] == [True, False]


async def test_a_persona_s_own_tool_prompt_is_asked() -> None:
    engine = FakeEngine(EngineRole.TOOL, "[]")
    await outcomes(engine, persona=PersonaSnapshot("a", "A", "f", "calm", "You are A.", tool_prompt="Watch for owls."))
    assert "Watch for owls." in tiny_tokenizer().decode(list(engine.requests[-1].prompt_ids))


@pytest.mark.django_db
def test_the_command_asks_the_model_where_the_model_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine = FakeEngine(EngineRole.TOOL, says_yes_to_screens)
    monkeypatch.setattr(evaluate_tool, "build_vllm_engine", lambda spec: engine)
    file = tmp_path / "lines.csv"
    file.write_text("text,tool\nlook at my screen,take_screenshot\nhi,\nthe screen broke,\n")
    call_command("evaluate_tool", file, by="model", threshold=0.4)
    out = capsys.readouterr().out
    assert "threshold 0.40" in out
    assert "recall         1.000" in out
    assert "false alarms   0.500" in out
    assert engine.stopped
