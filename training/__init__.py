"""Training: pre-training, fine-tuning, image tokenizer, plan, refiner, parser, and the recipes they follow."""
