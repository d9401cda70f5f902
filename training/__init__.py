"""Training: masks, captions, data sets of codes, pre-training, heads, and the recipe of the embedded checkpoint."""
