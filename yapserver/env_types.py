"""Types of environment variables: what a value may be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Lower = BeforeValidator(_lower)
Quantization = Annotated[Literal["auto", "fp8", "awq", "gptq", "gptq_marlin", "none"], Lower]
ToolDecisionKind = Annotated[Literal["auto", "classifier", "model"], Lower]
Fraction = Annotated[float, Field(gt=0.0, le=0.98)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
