"""vLLM's own OpenAI server, with environment variables for its engine process only.

    python -m tests.benchmarks.openai_server '{"OMP_NUM_THREADS": "1", …}' ARGUMENTS…

OpenMP reads these variables when it is loaded, so this module sets them after all imports.
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
