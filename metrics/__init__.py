"""Modules for `evaluate.load`, which takes their folder: `evaluate.load(gptface.metrics.FACE_ATTRIBUTES)`, offline."""

from pathlib import Path

FACE_ATTRIBUTES = str(Path(__file__).parent / "face_attributes")
FACIAL_EXPRESSION = str(Path(__file__).parent / "facial_expression")
