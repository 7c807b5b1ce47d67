"""Local AWQ quantization: float models to 4-bit exports that vLLM serves.

Two environments share this package. `prepare` runs in the server's (`.venv`): it decides what has to be made, reads the
prompts from the database and pushes. `worker` runs in the quantizer's own (`.venv-quantize`): it loads and compresses.
"""
