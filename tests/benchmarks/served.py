"""`manage.py` with the benchmark's engine arguments in place of the server's choice, so that all systems run the same
engine.

    BENCHMARK_ENGINE='{"arguments": …, "environ": …, "process_environ": …}' python -m tests.benchmarks.served serve
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    from yapserver.event_loop import use_uvloop

    use_uvloop()  # as manage.py does
    from django.core.management import execute_from_command_line

    from inference.engines import arguments, vllm_engine
    from inference.engines.device import Device
    from inference.engines.model_config import ModelConfig
    from inference.engines.spec import EngineSpec

    given = json.loads(os.environ["BENCHMARK_ENGINE"])

    def plan(spec: EngineSpec, device: Device, config: ModelConfig) -> arguments.LaunchPlan:
        chosen = arguments.plan(spec, device, config)
        return arguments.LaunchPlan(**given, facts=chosen.facts)

    vars(vllm_engine)["plan"] = plan
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
