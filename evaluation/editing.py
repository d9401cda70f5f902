"""`gptface evaluate editing`: does an edit reach its aim by an independent judge, and what else does it change?

The first faces in file order that lack the attribute are edited with the pipeline's default parameters, one candidate,
seed 0, in four arms: without guidance, with classifier-free guidance (CFG), with guidance by image-text matching
(ITM), with both. Other arms tell what the critic of drawn tokens is good for. How near the edited faces come to real
ones is told by the Fréchet distance between the judge's features of them and of the file's faces that have the
attribute.
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

from .arms import ARMS, CRITIC_ARMS
from .crops import LabelledCrop, PerceptualDistance, first_crops, labelled_crops
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
    having = labelled_crops(options.data, pipeline.face_size, {edit.label: edit.wanted}, options.layout)
    real = judge.features([face.image for face in having])
    return {"edit": options.edit, **common, **protocol.report(results, distance, real)}


def arm_parameters(name: str) -> dict[str, Any]:
    """
    Parameters of the pipeline for an arm: a name out of [`ARMS`] and [`CRITIC_ARMS`], `"itm=0.5"` for another step
    size than the default, or `"real=0.5"` for another weight of the critic.

    Raises:
        ValueError: an unknown arm, or a number for one that takes none.
    """
    base, equals, value = name.partition("=")
    arms = ARMS | CRITIC_ARMS
    if base not in arms or (equals and base not in ("itm", "both", "real")):
        raise ValueError(f"--arms knows {', '.join(arms)}, itm=NUMBER, both=NUMBER and real=NUMBER, not {name!r}")
    parameters = arms[base]
    if not equals:
        return parameters
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"--arms {name}: {value!r} is no number") from None
    weighted = parameters["itm_guidance"] | {"critic_weight": number} if base == "real" else number
    return {**parameters, "itm_guidance": weighted}


@dataclass(frozen=True)
class ArmResult:
    """
    The faces of one arm.

    Args:
        images: edited crops.
        probabilities: of the judge [faces, labels].
        changed_outside: pixels that differ from the photo although the mask is 0 there, all faces together.
        guidance_kl: nats a cell by which ITM guidance moved the distributions [faces].
        match_scores: log-odds [faces] that prompt and result match, by the model; NaN where nothing was painted.
        realness: logits [faces], how real its critic finds what was drawn; NaN where it has no word.
        forward_passes, seconds: of one edit, on average.
    """

    images: list[Image.Image]
    probabilities: np.ndarray
    changed_outside: int
    guidance_kl: np.ndarray
    match_scores: np.ndarray
    realness: np.ndarray
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

        images, outside, divergences, scores, realness = [], 0, [], [], []
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
                realness.append(result["realness"])
        finally:
            hook.remove()
        count_faces = len(self.faces)
        seconds = (time.perf_counter() - start) / count_faces
        return ArmResult(
            images,
            self.judge.probabilities(images),
            outside,
            np.array(divergences),
            # None, of an edit that a face does not allow or a critic that has no word, becomes NaN
            np.array(scores, np.float64),
            np.array(realness, np.float64),
            passes / count_faces,
            seconds,
        )

    @property
    def lacking(self) -> np.ndarray:
        """Which faces [faces] bool lack the attribute for the judge, too (p < 0.5 of the wanted value, decoded)."""
        return self._wanted(self.before) < 0.5

    def successes(self, probabilities: np.ndarray) -> np.ndarray:
        """Which of the faces that lack the attribute have it now [lacking] bool (p > 0.5); others cannot succeed."""
        return self._wanted(probabilities)[self.lacking] > 0.5

    def side_effect(self, probabilities: np.ndarray) -> float:
        """Mean |Δp| against the encoded-decoded faces over all labels that the edit does not entail."""
        return float(np.abs(probabilities - self.before)[:, self.others].mean())

    def _wanted(self, probabilities: np.ndarray) -> np.ndarray:
        values = probabilities[:, self.label]
        return values if self.edit.wanted else 1 - values

    def report(self, arms: dict[str, ArmResult], distance: PerceptualDistance, real: np.ndarray) -> dict[str, Any]:
        """
        Args:
            real: the judge's features [R, F] of faces that have the attribute.

        Returns:
            `images`; `lacking`: faces that the judge, too, finds to lack the attribute; `photo_difference`: the side
            effect that the photos themselves would have (what encoding and decoding changes); `real_images` R, and
            `photo_frechet`, how far the photos are from these (see [`frechet_distance`]); `arms`: name → `success`
            (share of the lacking ones, None where there is none), `probability` (mean of the wanted value, all faces),
            `side_effect`, `lpips` to the photo, `frechet` as of the photos, `changed_outside`, `match_score`,
            `realness` (None where the critic has no word), `guidance_kl`, `forward_passes` and `seconds` of an edit;
            and, for each arm but "none", `differs_from_none`: share of the faces whose picture is another one (0: the
            guidance ran and moved nothing), and `gain_over_none`: difference in success with its 95 % interval (paired
            bootstrap over the lacking faces, None without).
        """
        # needs scikit-learn
        from gptface.metrics.frechet_distance import frechet_distance

        photos = [face.image for face in self.faces]

        def to_real(images: Sequence[Image.Image]) -> float | None:
            return frechet_distance(self.judge.features(images), real)

        figures: dict[str, Any] = {}
        for name, arm in arms.items():
            figures[name] = {
                "success": mean_or_none(self.successes(arm.probabilities)),
                "probability": float(self._wanted(arm.probabilities).mean()),
                "side_effect": self.side_effect(arm.probabilities),
                "lpips": distance.mean(arm.images, photos),
                "frechet": to_real(arm.images),
                "changed_outside": arm.changed_outside,
                "match_score": mean_or_none(arm.match_scores),
                "realness": mean_or_none(arm.realness),
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
            "lacking": int(self.lacking.sum()),
            "probability_before": float(self._wanted(self.before).mean()),
            "photo_difference": self.side_effect(self.judge.probabilities(photos)),
            "real_images": len(real),
            "photo_frechet": to_real(photos),
            "arms": figures,
        }


def changed_where_masked_out(photo: Image.Image, edited: Image.Image, mask: Image.Image) -> int:
    """Pixels that differ although the mask is 0 there."""
    differs = (np.asarray(photo.convert("RGB")) != np.asarray(edited.convert("RGB"))).any(-1)
    return int((differs & (np.asarray(mask) == 0)).sum())


def share_that_differs(images: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """Share of the pairs in which any pixel differs."""
    return float(np.mean([image.tobytes() != other.tobytes() for image, other in zip(images, others, strict=True)]))


def mean_or_none(values: np.ndarray) -> float | None:
    """Mean of those of the values [n] that are not NaN; None of none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def paired_bootstrap(treated: np.ndarray, control: np.ndarray, seed: int = 0) -> dict[str, float] | None:
    """
    Mean difference of paired outcomes [faces] and its 95 % interval by resampling the faces.

    Returns:
        `difference`, `low`, `high`; None without faces.
    """
    if not len(treated):
        return None
    differences = treated.astype(np.float64) - control.astype(np.float64)
    rows = np.random.default_rng(seed).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[rows].mean(1), [2.5, 97.5])
    return {"difference": float(differences.mean()), "low": float(low), "high": float(high)}
