"""Configuration, image tokenizer, transformer with its heads, decoding schedule and guidance."""
