"""Fine-tune GPTFace on your own labelled faces with transformers' Trainer.

    python examples/finetune_attributes.py faces.parquet OUTPUT Eyeglasses Smiling

The file has an `image` column of aligned faces (encoded pictures) and a 0/1 column for each label.
"""

import argparse

import torch
from datasets import Dataset, Image
from transformers import Trainer, TrainingArguments

from gptface import DEFAULT_CHECKPOINT, GPTFaceForFaceAttributeClassification, GPTFaceProcessor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("output")
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    faces = Dataset.from_parquet(options.data).cast_column("image", Image()).train_test_split(0.1, seed=0)
    processor = GPTFaceProcessor.from_pretrained(options.model)
    model = GPTFaceForFaceAttributeClassification.from_pretrained(
        options.model,
        id2label=dict(enumerate(options.labels)),
        problem_type="multi_label_classification",
        ignore_mismatched_sizes=True,  # the head is made anew for these labels
    )

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        pixel_values = processor(images=[row["image"].convert("RGB") for row in rows])["pixel_values"]
        labels = torch.tensor([[float(row[label]) for label in options.labels] for row in rows])
        return {"pixel_values": pixel_values, "labels": labels}

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            options.output,
            num_train_epochs=options.epochs,
            learning_rate=3e-4,
            eval_strategy="epoch",
            label_names=["labels"],
            remove_unused_columns=False,
        ),
        data_collator=collate,
        train_dataset=faces["train"],
        eval_dataset=faces["test"],
    )
    trainer.train()
    trainer.save_model(options.output)
    processor.save_pretrained(options.output)  # the folder opens in pipeline("face-attribute-classification")


if __name__ == "__main__":
    main()
