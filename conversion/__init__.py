"""Checkpoints of other layouts into GPTFace folders and back.

`original` reads and writes checkpoints of the original training stack, `vqgan` reads taming-transformers' VQGAN and
exports the image tokenizer to diffusers, `bert` starts a model from a BERT-shaped encoder. `cli` is the command
`gptface convert`.

Each converter checks every name and shape before it writes, streams the tensors one by one as float32 into a folder
that appears whole or not at all, and returns a report of what it mapped, skipped and initialised.
"""
