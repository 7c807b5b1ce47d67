"""``manage.py serve`` with the benchmark's engine arguments in the place of those that the server would choose, so that
all systems run the very same engine: ``BENCHMARK_ENGINE='{"arguments": …, "environ": …}' python -m
tests.benchmarks.served serve``."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    from django.core.management import execute_from_command_line

    from inference.engines import vllm_engine
    from inference.engines.arguments import LaunchPlan

    given = json.loads(os.environ["BENCHMARK_ENGINE"])
    chosen = vllm_engine.plan  # type: ignore[attr-defined]

    def plan(*asked: object) -> LaunchPlan:
        facts = chosen(*asked).facts
        return LaunchPlan(given["arguments"], given["environ"], facts)

    vllm_engine.plan = plan  # type: ignore[attr-defined]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
