"""Fixed protocols behind the figures of a checkpoint: `gptface evaluate`."""
