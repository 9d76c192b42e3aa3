"""The native engine: Llama-family decoders on the CPU, over a paged KV cache shared by prefix."""
