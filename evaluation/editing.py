"""`gptface evaluate editing`: does an edit reach its aim by an independent judge, and what else does it change?

The first faces in file order that lack the attribute are edited with the pipeline's default parameters, one candidate,
seed 0, in four arms: without guidance, with classifier-free guidance (CFG), with guidance by image-text matching
(ITM), with both.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.pipelines.pipeline_loading import load_pipeline
from gptface.processing.image_saving import check_output

from .arms import ARMS
from .crops import LabelledCrop, PerceptualDistance, first_crops
from .judge import DEFAULT_JUDGE, AttributeJudge
from .judged_edits import EDITS, Edit
from .progress import progress
from .sheet import save_sheet

RESAMPLES = 10_000


def run_editing(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the edit, see [`EditingProtocol.report`], and its sheet."""
    arms = {name: arm_parameters(name) for name in options.arms.split(",")}
    if options.sheet is not None:
        check_output(options.sheet)
    edit = EDITS[options.edit]
    judge, distance = (
        AttributeJudge.from_file(options.judge or DEFAULT_JUDGE),
        PerceptualDistance(options.lpips_weights),
    )
    pipeline = load_pipeline("guided-face-editing", options.model)
    faces = first_crops(
        options.data,
        options.limit,
        pipeline.face_size,
        {edit.label: 1 - edit.wanted},
        options.layout,
    )
    protocol = EditingProtocol(pipeline, judge, edit, faces)
    common = {"state_refresh": options.state_refresh, "expand_prompt": options.expand_prompt, "draw": options.draw}
    results = {name: protocol.run(**parameters, **common) for name, parameters in arms.items()}
    if options.sheet is not None:
        rows = {"photo": [face.image for face in faces], "decoded": protocol.decoded}
        save_sheet({**rows, **{name: arm.images for name, arm in results.items()}}, options.sheet)
    return {"edit": options.edit, **common, **protocol.report(results, distance)}


def arm_parameters(name: str) -> dict[str, Any]:
    """
    Parameters of the pipeline for an arm: a name out of [`ARMS`], or `"itm=0.5"` for another step size than the
    default.

    Raises:
        ValueError: an unknown arm, or a step size for one that has none.
    """
    base, equals, value = name.partition("=")
    if base not in ARMS or (equals and base not in ("itm", "both")):
        raise ValueError(f"--arms knows {', '.join(ARMS)}, itm=NUMBER and both=NUMBER, not {name!r}")
    try:
        return {**ARMS[base], "itm_guidance": float(value)} if equals else ARMS[base]
    except ValueError:
        raise ValueError(f"--arms {name}: {value!r} is no number") from None


@dataclass(frozen=True)
class ArmResult:
    """
    The faces of one arm.

    Args:
        images: edited crops.
        probabilities: of the judge [faces, labels].
        changed_outside: pixels that differ from the photo although the mask is 0 there, all faces together.
        guidance_kl: nats a cell by which ITM guidance moved the distributions [faces].
        match_scores: log-odds [faces] that prompt and result match, by the model.
        forward_passes, seconds: of one edit, on average.
    """

    images: list[Image.Image]
    probabilities: np.ndarray
    changed_outside: int
    guidance_kl: np.ndarray
    match_scores: np.ndarray
    forward_passes: float
    seconds: float


class EditingProtocol:
    """
    An edit of faces and its figures.

    Args:
        pipeline: of the task guided-face-editing.
        faces: crops of the pipeline's size that lack the attribute.
    """

    def __init__(self, pipeline: Any, judge: AttributeJudge, edit: Edit, faces: Sequence[LabelledCrop]):
        self.pipeline, self.judge, self.edit, self.faces = pipeline, judge, edit, faces
        self.label = judge.index(edit.label)
        excluded = {judge.index(name) for name in (edit.label, *edit.entailed) if name in judge.labels}
        self.others = [index for index in range(len(judge.labels)) if index not in excluded]
        self.decoded = [self._decoded(face.image) for face in faces]
        self.before = judge.probabilities(self.decoded)

    @torch.no_grad()
    def _decoded(self, face: Image.Image) -> Image.Image:
        """The face encoded and decoded: what an edit that changes nothing would show."""
        model, processor = self.pipeline.model, self.pipeline.processor
        codes = model.image_tokenizer.encode(processor(images=[face])["pixel_values"].to(model.dtype))
        return processor.decode_codes(codes, model.image_tokenizer)[0]

    def run(self, **parameters: Any) -> ArmResult:
        """Edits all faces with the pipeline's defaults, except for `parameters`."""
        passes = 0

        def count(*_: Any) -> None:
            nonlocal passes
            passes += 1

        images, outside, divergences, scores = [], 0, [], []
        hook = self.pipeline.model.gptface.register_forward_hook(count)
        start = time.perf_counter()
        try:
            for face in progress(self.faces, "edits"):
                result = self.pipeline(
                    face.image, prompt=self.edit.prompt, seed=0, aligned=True, force=True, **parameters
                )[0]
                images.append(result["image"])
                outside += changed_where_masked_out(face.image, result["image"], result["mask"])
                divergences.append(result["guidance_kl"])
                scores.append(result["match_score"])
        finally:
            hook.remove()
        count_faces = len(self.faces)
        seconds = (time.perf_counter() - start) / count_faces
        return ArmResult(
            images,
            self.judge.probabilities(images),
            outside,
            np.array(divergences),
            np.array(scores),
            passes / count_faces,
            seconds,
        )

    def successes(self, probabilities: np.ndarray) -> np.ndarray:
        """
        Which faces [faces] bool lacked the attribute before (p < 0.5 of the wanted value, decoded) and have it now (>
        0.5).
        """
        before, after = self._wanted(self.before), self._wanted(probabilities)
        return (before < 0.5) & (after > 0.5)

    def side_effect(self, probabilities: np.ndarray) -> float:
        """Mean |Δp| against the encoded-decoded faces over all labels that the edit does not entail."""
        return float(np.abs(probabilities - self.before)[:, self.others].mean())

    def _wanted(self, probabilities: np.ndarray) -> np.ndarray:
        values = probabilities[:, self.label]
        return values if self.edit.wanted else 1 - values

    def report(self, arms: dict[str, ArmResult], distance: PerceptualDistance) -> dict[str, Any]:
        """
        `images`; `lacking`: faces that the judge, too, finds to lack the attribute (the others cannot succeed);
        `photo_difference`: the side effect that the photos themselves would have (what encoding and decoding changes);
        `arms`: name → `success` (share of all faces), `probability` (mean of the wanted value), `side_effect`, `lpips`
        to the photo, `changed_outside`, `match_score`, `guidance_kl`, `forward_passes` and `seconds` of an edit; and,
        for each arm but "none", `differs_from_none`: share of the faces whose picture is another one (0: the guidance
        ran and moved nothing), and `gain_over_none`: difference in success with its 95 % interval (paired bootstrap
        over faces).
        """
        photos = [face.image for face in self.faces]
        figures: dict[str, Any] = {}
        for name, arm in arms.items():
            figures[name] = {
                "success": float(self.successes(arm.probabilities).mean()),
                "probability": float(self._wanted(arm.probabilities).mean()),
                "side_effect": self.side_effect(arm.probabilities),
                "lpips": distance.mean(arm.images, photos),
                "changed_outside": arm.changed_outside,
                "match_score": float(arm.match_scores.mean()),
                "guidance_kl": float(arm.guidance_kl.mean()),
                "forward_passes": arm.forward_passes,
                "seconds": arm.seconds,
            }
            if "none" in arms and name != "none":
                figures[name]["differs_from_none"] = share_that_differs(arm.images, arms["none"].images)
                figures[name]["gain_over_none"] = paired_bootstrap(
                    self.successes(arm.probabilities), self.successes(arms["none"].probabilities)
                )
        return {
            "prompt": self.edit.prompt,
            "images": len(self.faces),
            "lacking": int((self._wanted(self.before) < 0.5).sum()),
            "probability_before": float(self._wanted(self.before).mean()),
            "photo_difference": self.side_effect(self.judge.probabilities(photos)),
            "arms": figures,
        }


def changed_where_masked_out(photo: Image.Image, edited: Image.Image, mask: Image.Image) -> int:
    """Pixels that differ although the mask is 0 there."""
    differs = (np.asarray(photo.convert("RGB")) != np.asarray(edited.convert("RGB"))).any(-1)
    return int((differs & (np.asarray(mask) == 0)).sum())


def share_that_differs(images: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """Share of the pairs in which any pixel differs."""
    return float(np.mean([image.tobytes() != other.tobytes() for image, other in zip(images, others, strict=True)]))


def paired_bootstrap(treated: np.ndarray, control: np.ndarray, seed: int = 0) -> dict[str, float]:
    """
    Mean difference of paired outcomes [faces] and its 95 % interval by resampling the faces.

    Returns:
        `difference`, `low`, `high`.
    """
    differences = treated.astype(np.float64) - control.astype(np.float64)
    rows = np.random.default_rng(seed).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[rows].mean(1), [2.5, 97.5])
    return {"difference": float(differences.mean()), "low": float(low), "high": float(high)}
