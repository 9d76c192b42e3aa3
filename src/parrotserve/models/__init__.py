"""Models on disk: finding and fetching them, their weights, tokenizer and chat template."""
