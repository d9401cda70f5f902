"""Training: captions, masking, collators, data sets and the entry points of the Trainer."""
