"""The parts of the load test: who arrives when, what each does, and what the times come to."""
