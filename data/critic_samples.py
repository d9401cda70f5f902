"""What a critic of drawn tokens is trained on: faces of which a part was drawn by the generator, or is another's.

The folder that [`write_critic_samples`] fills holds a parquet file a batch, with the columns `codes` and `drawn` (one
entry a token, raster order), `kind` (one of `KINDS`), `area` (which part it was) and `caption`. `manifest.json` says
which generator drew them: a run that was stopped goes on, one with another generator does not.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptface.metrics.ranking import area_under_curve
from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.processing.edits import EDITS, Edit
from gptface.processing.part_colour import PartColour
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.prompt_words import expand_prompt
from gptface.processing.regions import region_cells
from gptface.processing.whole_files import whole_file

from .captions import counterfactual, render, sample_caption
from .claimed_folder import claimed_folder
from .code_dataset import CodeTable
from .encode import ABSENT
from .masking import sample_generator

logger = logging.getLogger(__name__)

#: Who drew what is drawn in a sample: the generator with guidance by matching, or without; another face; nobody.
KINDS = ("guided", "free", "foreign", "photo")
#: Parameters whose values decide what is drawn.
GENERATOR_PARTS = ("gptface.embeddings.", "gptface.layers.", "gptface.norm.", "lm_head.", "match_head.")


@dataclass(frozen=True)
class CriticSampleLaw:
    """
    How samples are drawn.

    Args:
        batch_size: faces that are drawn together, with the same parameters.
        guided, free: shares of the batches that the generator draws with guidance by matching, and without; the rest
            are foreign: another face's tokens, tokens at random, or the face's own in other places.
        edits: share of the faces of which the area of an edit is drawn, half of these under the edit's words; else a
            box or tokens at random.
        opposites: share of the faces that are drawn under a caption that is false of them, where it is no edit's.
        most_steps: of decoding; fewer are more frequent, they cost less. Of each face two grids are kept: the last
            one and that of an earlier step, where there is one.
        temperatures, guidance_scales, itm_guidance: ranges of the parameters of [`generate`].
    """

    batch_size: int = 64
    guided: float = 0.3
    free: float = 0.5
    edits: float = 0.65
    opposites: float = 0.5
    most_steps: int = 8
    temperatures: tuple[float, float] = (0.2, 1.0)
    guidance_scales: tuple[float, float] = (1.0, 3.0)
    itm_guidance: tuple[float, float] = (1.0, 6.0)


def generator_hash(model: torch.nn.Module) -> str:
    """Of the weights that decide what is drawn, as fp16, whatever the dtype they were opened in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(GENERATOR_PARTS):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class CriticSampler:
    """
    Draws batches of samples; each is a function of seed and number alone.

    Args:
        model: the generator; what it draws are plans, where its plan is trained, else codes.
        table: faces with their labels, of the model's image tokenizer.
        bf16: whether it computes in bfloat16.

    Raises:
        ValueError: no faces, or a model with a plan and codes without one.
    """

    def __init__(
        self,
        model: GPTFaceForGuidedGeneration,
        processor: GPTFaceProcessor,
        table: CodeTable,
        law: CriticSampleLaw | None = None,
        seed: int = 0,
        bf16: bool = False,
    ):
        self.model, self.processor, self.law = model.eval(), processor, law or CriticSampleLaw()
        self.seed, self.bf16 = seed, bf16
        codes = table.plan_codes if model.config.plan_trained else table.codes
        if codes is None:
            raise ValueError("the faces have no plan codes: encode them with the image tokenizer of this model")
        whole = np.flatnonzero((codes[:, 0] != ABSENT).all(1))
        if len(whole) < 2:
            raise ValueError("a critic needs at least two faces without absent tokens")
        self.faces = codes[whole]
        self.labels = [table.labels[row] for row in whole]
        self.side = int(self.faces.shape[-1] ** 0.5)
        self.edits = _edits_by_regions()

    def batch(self, number: int) -> dict[str, np.ndarray | list[str]]:
        """The columns of a batch."""
        rng, law = sample_generator(self.seed, 0, number), self.law
        rows = rng.integers(len(self.faces), size=law.batch_size)
        photo = self.faces[rows, rng.integers(2, size=len(rows))].astype(np.int64)
        chosen = [self._area(rng) for _ in rows]
        mask = np.stack([cells for _, _, cells in chosen])
        captions = [self._caption(rng, self.labels[row], edit) for row, (_, edit, _) in zip(rows, chosen, strict=True)]
        kind = str(rng.choice(KINDS[:3], p=[law.guided, law.free, 1 - law.guided - law.free]))
        if kind == "foreign":
            # these cost nothing, as do the photos themselves
            grids = {kind: [self._foreign(rng, photo, mask)], "photo": [photo]}
        else:
            grids = {kind: self._drawn(rng, photo, mask, captions, kind == "guided")}
        flat = [(name, grid) for name, made in grids.items() for grid in made]
        return {
            "codes": np.concatenate([grid for _, grid in flat]).astype(np.uint16),
            "drawn": np.concatenate([grid != photo for _, grid in flat]),
            "kind": [name for name, grid in flat for _ in grid],
            "area": [area for area, _, _ in chosen] * len(flat),
            "caption": captions * len(flat),
        }

    def _area(self, rng: np.random.Generator) -> tuple[str, Edit | None, np.ndarray]:
        """Name of an area, the edit whose area it is, and its tokens bool [side²], at least one."""
        if rng.random() < self.law.edits:
            regions = list(self.edits)[rng.integers(len(self.edits))]
            choices = self.edits[regions]
            return "+".join(regions), choices[rng.integers(len(choices))], self._tokens(regions)
        if rng.random() < 0.3:
            (top, left), (height, width) = rng.integers(self.side, size=2), rng.integers(1, self.side, size=2)
            box = np.zeros((self.side, self.side), bool)
            box[top : top + height, left : left + width] = True
            return "box", None, box.ravel()
        chosen = rng.random(self.side**2) < rng.uniform(0.05, 1)
        chosen[rng.integers(len(chosen))] = True
        return "random", None, chosen

    def _tokens(self, regions: Sequence[str]) -> np.ndarray:
        """As edits choose them: of a plan all tokens that have a cell in the regions."""
        grid = self.model.config.grid_size
        cells = region_cells(regions, grid)
        return cells.reshape(self.side, grid // self.side, self.side, grid // self.side).any((1, 3)).ravel()

    def _caption(self, rng: np.random.Generator, labels: Mapping[str, int], edit: Edit | None) -> str:
        if edit is not None and rng.random() < 0.5:
            return expand_prompt(edit.phrase)
        caption = sample_caption(labels, rng)
        if rng.random() < self.law.opposites and (other := counterfactual(caption.mentions, rng)):
            return render(other, rng)
        return caption.text or "a face"

    def _foreign(self, rng: np.random.Generator, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Each face with what is not its own in the masked tokens: the next face's, random codes, or its own moved."""
        side, codes = self.side, self.model.config
        # of two faces the one with less of the grid is the foreign one
        mask = np.where(mask.mean(1, keepdims=True) > 0.5, ~mask, mask)
        most = codes.num_plan_codes if codes.is_plan(photo.shape[1]) else codes.num_codes
        grid = photo.reshape(-1, side, side)
        moved = np.roll(grid, rng.choice([-2, -1, 1, 2], size=2), (1, 2)).reshape(photo.shape)
        mirrored = grid[:, :, ::-1].reshape(photo.shape)
        others = np.stack([np.roll(photo, 1, 0), rng.integers(most, size=photo.shape), moved, mirrored])
        which = rng.choice(len(others), size=len(photo), p=[0.55, 0.15, 0.15, 0.15])
        return np.where(mask, others[which, np.arange(len(photo))], photo)

    def _drawn(
        self, rng: np.random.Generator, photo: np.ndarray, mask: np.ndarray, captions: list[str], guided: bool
    ) -> list[np.ndarray]:
        """The grids [B, N] of one earlier step and of the last one."""
        law, device = self.law, self.model.device
        steps = 1 + int(law.most_steps * rng.random() ** 2)
        kept = int(rng.integers(steps))
        grids: list[np.ndarray] = []

        def keep(_: Any, step: int, timestep: int, state: Mapping[str, torch.Tensor]) -> None:
            if step == kept and timestep:
                grids.append(state["codes"].cpu().numpy())

        scale = 1.0 if rng.random() < 0.3 else float(rng.uniform(*law.guidance_scales))
        inputs = self.processor(text=captions, return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model.generate(
                inputs["input_ids"],
                inputs["attention_mask"],
                torch.from_numpy(photo).to(device),
                torch.from_numpy(mask).to(device),
                num_inference_steps=steps,
                temperature=float(rng.uniform(*law.temperatures)),
                guidance_scale=scale,
                itm_guidance=float(rng.uniform(*law.itm_guidance)) if guided else None,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in rng.integers(2**62, size=len(photo))],
                callback_on_step_end=keep,
            )
        return [*grids, output.codes.cpu().numpy()]


def _edits_by_regions() -> dict[tuple[str, ...], list[Edit]]:
    """Regions → the edits that draw them, so that an area is as frequent as another, however many edits it has."""
    found: dict[tuple[str, ...], list[Edit]] = {}
    for edit in EDITS.values():
        if not isinstance(edit.transfer, PartColour):
            found.setdefault(edit.regions, []).append(edit)
    return found


@dataclass(frozen=True)
class CriticSamples:
    """
    Grids of which a part is drawn.

    Args:
        codes: [S, N] int64.
        drawn: [S, N] bool, the tokens that are drawn and others than the photo's.
        kinds, areas, captions: of each grid, see the module.
    """

    codes: torch.Tensor
    drawn: torch.Tensor
    kinds: list[str]
    areas: list[str]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of_batches(cls, batches: Iterable[Mapping[str, Any]]) -> "CriticSamples":
        """Those of batches with the columns of the module."""
        columns: dict[str, list[Any]] = {name: [] for name in ("codes", "drawn", "kind", "area", "caption")}
        for batch in batches:
            for name, values in columns.items():
                values += list(batch[name])
        codes, drawn = (torch.from_numpy(np.array(columns.pop(name))) for name in ("codes", "drawn"))
        return cls(codes.long(), drawn, *columns.values())

    def figures(self, logits: torch.Tensor) -> dict[str, float]:
        """
        How well logits [S, N] that tokens are real tell the photos' from the drawn ones: the area under the curve over
        all tokens (`auc`), over those of grids that the generator drew with guidance by matching (`auc_guided`) and
        without (`auc_free`), and that are in part another face's (`auc_foreign`).
        """
        figures = {}
        for kind in (None, *KINDS[:3]):
            chosen = torch.tensor([kind in (None, each) for each in self.kinds])
            drawn, scores = self.drawn[chosen], logits[chosen]
            if drawn.any():
                name = "auc" if kind is None else f"auc_{kind}"
                figures[name] = area_under_curve(scores[~drawn].numpy(), scores[drawn].numpy())
        return figures


def read_critic_samples(folder: str | Path) -> CriticSamples:
    """
    What [`write_critic_samples`] wrote.

    Raises:
        FileNotFoundError: a folder without samples.
    """
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob("samples-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no samples of a critic: `gptface train-critic` writes them")
    return CriticSamples.of_batches(pq.read_table(file, page_checksum_verification=True).to_pydict() for file in files)


def write_critic_samples(folder: str | Path, sampler: CriticSampler, batches: int, made_of: Mapping[str, Any]) -> None:
    """
    Draws the batches that a folder lacks.

    Args:
        made_of: what the sampler does not know of its faces, such as where they came from.

    Raises:
        ValueError: the folder was filled by another generator, of other faces or by another law.
        OSError: another run is writing into it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    described = {
        "generator": generator_hash(sampler.model),
        "law": asdict(sampler.law),
        "seed": sampler.seed,
        "input": [],
        **made_of,
    }
    with claimed_folder(folder, described):
        for number in range(batches):
            file = folder / f"samples-{number:05}.parquet"
            if file.exists():
                continue
            columns = {
                name: pa.array(list(values) if isinstance(values, np.ndarray) else values)
                for name, values in sampler.batch(number).items()
            }
            with whole_file(file) as unfinished:
                pq.write_table(pa.table(columns), unfinished, write_page_checksum=True)
            logger.info("samples: batch %d of %d", number + 1, batches)
