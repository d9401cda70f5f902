"""How fast GPTFace is beside what a user would take instead: `python -m benchmarks.speed` from the repository's
folder.
"""
