"""The OpenAI-compatible API: turns its requests into batches of the protocol, and their results into its answers."""
