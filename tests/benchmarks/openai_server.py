"""vLLM's own OpenAI server, with variables that are for its engine's process alone:

    python -m tests.benchmarks.openai_server '{"OMP_NUM_THREADS": "1", …}' ARGUMENTS…

OpenMP ties a process to its cores by them when it is loaded, so they are set when everything is.
"""

from __future__ import annotations

import json
import os
import runpy
import sys


def main() -> None:
    import vllm.entrypoints.openai.api_server
    import vllm.v1.engine.async_llm  # noqa: F401

    os.environ.update(json.loads(sys.argv.pop(1)))
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


if __name__ == "__main__":
    main()
