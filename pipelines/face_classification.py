"""`pipeline("face-attribute-classification")` and `pipeline("facial-expression")`."""

from typing import Any

import torch

from gptface.modeling_gptface.heads_gptface import GPTFaceForImageClassification

from .face_pipeline import FacePipeline


class FaceClassificationPipeline(FacePipeline):
    """Common part of the two classifiers: one list of scores for each face."""

    model: GPTFaceForImageClassification
    head_name: str

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.require_head(self.head_name)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        threshold: float | None = None,
        face: str | int | None = None,
        aligned: bool | None = None,
        landmarks: Any = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        find = {"face": face, "aligned": aligned, "landmarks": landmarks}
        choose = {"top_k": top_k, "threshold": threshold, "face": face}
        return (
            {key: value for key, value in find.items() if value is not None},
            {},
            {key: value for key, value in choose.items() if value is not None},
        )

    def preprocess(self, inputs: dict[str, Any], **find: Any) -> dict[str, Any]:
        faces = self.find_faces(self.load(inputs), **find)
        pixels = self.processor(images=[face.crop for face in faces])["pixel_values"]
        return {"pixel_values": pixels, "boxes": [face.box for face in faces]}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self.model(pixel_values=inputs["pixel_values"]).logits
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the classifier's logits are not finite: the checkpoint is damaged")
        return {"logits": logits, "boxes": inputs["boxes"]}

    def postprocess(
        self, outputs: dict[str, Any], top_k: int | None = None, threshold: float | None = None, face: Any = "largest"
    ) -> list[Any]:
        """
        For each face a list of {"label", "score"} (and "box" where it was detected), best first; with `face="all"` a list
        of such lists.
        """
        head = self.model.config.heads[self.head_name]
        multi_label = head["problem_type"] == "multi_label_classification"
        logits = outputs["logits"].float() / head.get("temperature", 1.0)
        scores = logits.sigmoid() if multi_label else logits.softmax(-1)
        if not torch.isfinite(scores).all():
            raise FloatingPointError("the scores are not finite: the head's temperature is damaged")
        results = []
        for row, box in zip(scores.tolist(), outputs["boxes"], strict=True):
            entries = [{"label": label, "score": score} for label, score in zip(head["labels"], row, strict=True)]
            if threshold is not None:
                entries = [entry for entry in entries if entry["score"] >= threshold]
            entries.sort(key=lambda entry: -entry["score"])
            if box is not None:
                entries = [{**entry, "box": box} for entry in entries]
            results.append(entries[:top_k])
        return results if face == "all" else results[0]


class FaceAttributeClassificationPipeline(FaceClassificationPipeline):
    """
    Face attributes with independent scores in [0, 1].

    ```python
    classify = pipeline("face-attribute-classification")
    classify("portrait.jpg", top_k=5)  # [{"label": "Young", "score": …, "box": …}, …]
    ```
    """

    head_name = "attributes"


class FacialExpressionPipeline(FaceClassificationPipeline):
    """
    Facial expression, scores summing to 1.

    ```python
    expression = pipeline("facial-expression")
    expression("portrait.jpg", top_k=1)  # [{"label": "neutral", "score": …, "box": …}]
    ```
    """

    head_name = "expression"
