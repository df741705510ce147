"""OpenAI-compatible servers: calls that always end, and a vLLM that runs as long as its caller."""
