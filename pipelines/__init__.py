"""Pipelines: guided face editing, face attributes, facial expression."""
