"""`pipeline("face-classification")`, and by its heads `pipeline("face-attribute-classification")` and
`pipeline("facial-expression")`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel

from .face_pipeline import FACES_AT_ONCE, FacePipeline, PipelineInput

#: Heads that have a task of their own. A folder saved with one of them serves the tasks of both.
TASK_HEADS = ("attributes", "expression")


#: Problem type of a head → what makes scores of its logits [faces, labels].
ANSWERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "multi_label_classification": torch.sigmoid,
    "single_label_classification": functools.partial(torch.softmax, dim=-1),
    "regression": torch.Tensor.clone,
}


class FaceClassificationPipeline(FacePipeline):
    """
    Scores of any classification head: one list for each face.

    ```python
    classify = pipeline("face-classification", head="expression")
    classify("portrait.jpg", top_k=1)  # [{"label": "neutral", "score": …, "box": …}]
    pipeline("face-classification", head="age")("portrait.jpg")  # [{"label": "age", "score": years, "box": …}]
    ```

    Args:
        head: name of the head, as in `model.config.heads`; by default that of the model's class or folder, else
            `"attributes"`, else the first one.

    Raises:
        ValueError: a head that there is not or that is not trained; or, where `head` is not given, a task of one head
            ("facial-expression") with a model that was fine-tuned for other labels, whose answers these would not be.
    """

    model: GPTFaceTaskModel
    head_name: str = ""

    def __init__(self, *args: Any, head: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        chosen = self.model.config.classification_head or getattr(self.model, "head_name", "")
        if self.head_name and not head and chosen and chosen not in TASK_HEADS:
            labels = ", ".join(self.model.config.heads[chosen]["labels"][:5])
            raise ValueError(
                f'the checkpoint is for the head {chosen!r} ({labels}): open it by pipeline("face-classification"), '
                f"or name head={self.head_name!r} for the labels that it has beside"
            )
        self.head_name = head or self.head_name or chosen or self.model.config.default_head or ""
        self.require_head(self.head_name)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        threshold: float | str | None = None,
        face: str | int | None = None,
        aligned: bool | None = None,
        landmarks: Any = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if threshold not in (None, "auto") and (isinstance(threshold, str) or not 0 <= threshold <= 1):  # type: ignore[operator]
            raise ValueError(f'threshold must be a score in 0…1 or "auto", got {threshold!r}')
        find = {"face": face, "aligned": aligned, "landmarks": landmarks}
        choose = {"top_k": top_k, "threshold": threshold, "face": face}
        return (
            {key: value for key, value in find.items() if value is not None},
            {},
            {key: value for key, value in choose.items() if value is not None},
        )

    def preprocess(self, source: PipelineInput, **find: Any) -> dict[str, Any]:
        faces = self.find_faces(self.load(source), **find)
        pixels = self.processor(images=[face.crop for face in faces])["pixel_values"]
        return {"pixel_values": pixels, "boxes": [face.box for face in faces]}

    def _forward(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # The named head, whichever head the model's class is about: remote code knows Auto classes only.
        pixels = torch.cat([state["pixel_values"] for state in states])
        read = (self.model.read_for(self.head_name, part) for part in pixels.split(FACES_AT_ONCE))
        logits = torch.cat([self.model.classify(self.head_name, outputs) for outputs in read])
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the classifier's logits are not finite: the checkpoint is damaged")
        counts = [len(state["boxes"]) for state in states]
        return [
            {"logits": rows, "boxes": state["boxes"]} for rows, state in zip(logits.split(counts), states, strict=True)
        ]

    def postprocess(
        self,
        outputs: dict[str, Any],
        top_k: int | None = None,
        threshold: float | str | None = None,
        face: Any = "largest",
    ) -> list[Any]:
        """
        For each face a list of {"label", "score"} (and "box" where it was detected), best first; with `face="all"` a
        list of such lists. Scores are calibrated by the head's temperature; those of a regression are its values, as
        in transformers.

        Args:
            top_k: at most so many labels, the best; all by default.
            threshold: labels with at least this score; `"auto"`: at least the label's own threshold, which fine-tuning
                chose (0.5 where it did not); None: all.

        Raises:
            ValueError: `"auto"` where the labels exclude each other: the best one is the answer (`top_k=1`); and for a
                regression.
        """
        head = self.model.config.heads[self.head_name]
        scores = ANSWERS[head["problem_type"]](outputs["logits"].float() / head.get("temperature", 1.0))
        if not torch.isfinite(scores).all():
            raise FloatingPointError("the scores are not finite: the head's temperature is damaged")
        limits = [threshold] * len(head["labels"])
        if threshold == "auto":
            if head["problem_type"] == "regression":
                raise ValueError(f"{self.head_name!r} gives values, which have no thresholds of their own")
            if head["problem_type"] != "multi_label_classification":
                raise ValueError(
                    f'the labels of {self.head_name!r} exclude each other: use top_k=1, not threshold="auto"'
                )
            limits = head.get("thresholds") or [0.5] * len(limits)
        results = []
        for row, box in zip(scores.tolist(), outputs["boxes"], strict=True):
            entries = [
                {"label": label, "score": score}
                for label, score, limit in zip(head["labels"], row, limits, strict=True)
                if limit is None or score >= limit
            ]
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
    classify("portrait.jpg", threshold="auto")  # the labels that hold
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
