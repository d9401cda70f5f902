"""`gptface serve`: the pipelines behind HTTP."""
