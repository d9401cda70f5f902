"""The judge of edits: a small CNN over aligned faces that tells CelebA's attributes.

It shares no weights with any GPTFace model and takes no part in guidance, ranking or early stopping: only the
protocols of this package read it. `benchmarks/judge/train_judge.py` trains it; its file lies beside that script in a
checkout.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

#: The judge's file in a checkout; an installed package comes without it.
DEFAULT_JUDGE = Path(__file__).resolve().parent.parent / "benchmarks" / "judge" / "judge.safetensors"


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; `stride` 2 halves the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] → [B, outputs, H/stride, W/stride]."""
        inner = self.first_norm(self.first(states)).relu()
        return (self.second_norm(self.second(inner)) + self.shortcut(states)).relu()


class AttributeJudge(nn.Module):
    """
    Aligned faces of 64 px → one logit for each attribute.

    Args:
        labels: names of the attributes, in the order of the logits.
        widths: channels of the stages; each halves the side.
    """

    image_size = 64

    def __init__(self, labels: Sequence[str], widths: Sequence[int] = (16, 32, 72, 128)):
        super().__init__()
        self.labels = list(labels)
        stages = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1)
        self.blocks = nn.Sequential(
            *(ResidualBlock(before, after, 1 + (index > 0)) for index, (before, after) in enumerate(stages))
        )
        self.num_features = 2 * widths[-1]
        # Average and maximum: an attribute fills the whole face (age) or a small part of it (glasses).
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.num_features, len(self.labels)))

    @classmethod
    def from_file(cls, path: str | Path = DEFAULT_JUDGE) -> "AttributeJudge":
        """
        The judge of a safetensors file and of the JSON file of the same name beside it, which holds `labels`; in eval
        mode.

        Raises:
            OSError: a file that is missing or damaged.
            ValueError: weights or labels of something else.
        """
        path = Path(path)
        if not path.is_file() or not path.with_suffix(".json").is_file():
            raise FileNotFoundError(
                f"the judge needs {path} and {path.with_suffix('.json').name} beside it: run from a checkout, "
                "or name the file with --judge"
            )
        try:
            state = {name: tensor.float() for name, tensor in load_file(path).items()}
            judge = cls(json.loads(path.with_suffix(".json").read_text())["labels"])
            judge.load_state_dict(state)
        except SafetensorError as error:
            raise OSError(f"{path} is truncated or damaged ({error}): fetch it again") from error
        except (RuntimeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} and its JSON file do not hold a judge of attributes: {error}") from error
        return judge.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, 64, 64] in [-1, 1] → logits [B, labels]."""
        return self.head(self.pooled(pixels))

    def pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, 64, 64] in [-1, 1] → what the head reads [B, num_features]."""
        states = self.blocks(self.stem(pixels))
        return torch.cat([states.mean((2, 3)), states.amax((2, 3))], 1)

    def index(self, label: str) -> int:
        """
        Place of a label among the logits.

        Raises:
            ValueError: it does not know the label.
        """
        if label not in self.labels:
            raise ValueError(f"the judge does not know {label!r}; it knows {', '.join(self.labels)}")
        return self.labels.index(label)

    @torch.no_grad()
    def features(self, faces: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Aligned crops of any size → what its head reads of them, float32 [faces, features]."""
        starts = range(0, len(faces), batch_size)
        parts = [self.pooled(judge_pixels(faces[start : start + batch_size])) for start in starts]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.num_features), np.float32)

    @torch.no_grad()
    def probabilities(self, faces: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Aligned crops of any size → probability of each label, float32 [faces, labels]."""
        return self.head(torch.from_numpy(self.features(faces, batch_size))).sigmoid().numpy()


def judge_pixels(faces: Sequence[Image.Image]) -> torch.Tensor:
    """Aligned crops → what the judge reads: float [B, 3, 64, 64] in [-1, 1]."""
    side = AttributeJudge.image_size
    small = [np.asarray(face.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)) for face in faces]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
