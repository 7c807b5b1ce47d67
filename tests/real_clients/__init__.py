"""Clients that people already have, in an environment of their own (.venv-clients), against a real server."""
