"""Captions sampled by a vLLM server."""
