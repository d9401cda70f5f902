"""Data: untrusted collections, encoded faces, labels, captions, masks, and what changes pictures in training."""
