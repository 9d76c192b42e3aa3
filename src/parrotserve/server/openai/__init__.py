"""The OpenAI-compatible API: its requests as batches of the protocol, and what becomes of them as its answers."""
