"""The model card, made from what `gptface evaluate` printed: no number in it is typed by hand."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import ModelCardData

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT

from .card_tables import SECTIONS, calibration_lines, figure, findings, group_lines
from .reports import FURTHER_HEAD, Report, read_reports

TAGS = (
    "face-editing",
    "face-attribute-classification",
    "facial-expression",
    "text-to-face",
    "masked-image-modeling",
    "image-text-matching",
)
DATASETS = ("CelebA", "FER2013")
#: What a head was trained on, by its name and by what it reads.
HEAD_DATA = {
    ("attributes", "codes"): "the same faces as the transformer",
    ("expression", "codes"): (
        "FER2013, train split: all 11,143 faces, and changed copies of them, on the transformer as it was before its "
        "last phase"
    ),
    (
        "attributes",
        "pixels",
    ): "CelebA's labels (4,479 sharp faces, 9,686 half-size), who is young also by UTKFace's ages",
    ("expression", "pixels"): (
        "RAF-DB, train split (11,045 colour faces, one label each), and FER+, train split (18,909 grey faces, the "
        "votes of ten annotators as shares); faces whose majority is contempt, unknown or no face are left out"
    ),
    ("age", "pixels"): "UTKFace, ages in years",
}
#: Of the heads, by what they read.
HEAD_TERMS = {
    "codes": "non-commercial research",
    "pixels": "non-commercial research; RAF-DB forbids redistribution",
}
#: How the rows of UTKFace come in by which groups are measured.
GROUP_ROWS = {
    "codes": (
        "The rows of UTKFace on which results by group used to be measured are among the faces of the last phase: "
        "such figures would say nothing, so there are none."
    ),
    "pixels": (
        "The rows of UTKFace on which results by group are measured, every tenth, were left out of the training of "
        "the pixel reader and its heads; the transformer, which stayed as it is, has seen them with captions that say "
        "age and gender."
    ),
}

_SHORT_CARD = """\
# A GPTFace checkpoint

```python
from transformers import pipeline

edit = pipeline("guided-face-editing", model="MODEL", trust_remote_code=True)  # a folder or a name on the Hub
edit("portrait.jpg", prompt="smiling", seed=0)[0]["image"]
```

Nothing has been written about this checkpoint yet: on which data it was trained, under which terms, and how well it
works.

Edit photos only with the consent of the people in them, and say that they are edited. Do not use it to identify
people, for surveillance, or to deceive. Weights derived from the checkpoint of GPTFace are for non-commercial research
only, see `LICENSES/LicenseRef-GPTFace-Weights.txt`; its image tokenizer is derived from TAEF2 (MIT), see
`LICENSES/TAEF2-MIT.txt`.
"""


def model_card(folder: str | Path, model: str | Path | None = None) -> str:
    """
    The card of a checkpoint.

    Args:
        folder: of the reports, see [`read_reports`]. A section whose report is missing is left out, and the card says
            so. `training.json` holds the facts of `card_training.md`, in the same form.
        model: folder of the checkpoint; the embedded one by default.

    Raises:
        OSError: a folder or file is missing.
        ValueError: a file that is no report, reports of different checkpoints, or one without a figure that the card
            names.
    """
    reports = read_reports(folder)
    training = reports.pop("training", None)
    missing = [
        f"{section.title} (`{section.name}.json`)"
        for section in SECTIONS
        if not (section.optional or section.found(reports))
    ]
    missing += [f"{title} (`{name}.json`)" for name, title in (("groups", "Results by group"),) if name not in reports]
    results = [line for section in SECTIONS for line in section.lines(reports)]
    if missing:
        results += [f"Not measured for this checkpoint: {', '.join(missing)}.", ""]
    text = _template("card_template.md").substitute(
        _checkpoint_facts(Path(model or DEFAULT_CHECKPOINT)),
        training=_training(training),
        results="\n".join(results),
        groups="\n".join(group_lines(reports)),
        calibration="\n".join(calibration_lines(reports)),
        findings="".join(f"- {finding}\n" for finding in findings(reports)),
    )
    return f"---\n{metadata(reports)}\n---\n\n{text}"


def short_card() -> str:
    """The card of a checkpoint that nobody has written one for: metadata, terms, how to open it."""
    return f"---\n{metadata({})}\n---\n\n{_SHORT_CARD}"


def metadata(reports: Mapping[str, Report]) -> str:
    """The card's YAML, with those results that have a place in a model index."""
    metrics = {name for entry in _model_index(reports) for name in (entry["type"] for entry in entry["metrics"])}
    known: dict[str, Any] = {"datasets": list(DATASETS)} if reports else {}
    if metrics:
        known["metrics"] = sorted(metrics)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license="other",
        license_name="research-only",
        license_link="LICENSES/LicenseRef-GPTFace-Weights.txt",
        language="en",
        tags=list(TAGS),
        **known,
    )
    if metrics:
        data["model-index"] = [{"name": "GPTFace", "results": _model_index(reports)}]
    return data.to_yaml()


def _model_index(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    tasks = {
        "attributes": ("image-classification", "Face attributes", ("accuracy", "balanced_accuracy", "f1")),
        "expression": ("image-classification", "Facial expression", ("accuracy", "balanced_accuracy", "f1")),
        "tokenizer": ("image-to-image", "Reconstruction of faces", ("psnr", "lpips")),
    }
    tasks |= {key: tasks["expression"] for key in reports if key.startswith("expression_")}
    for key in (key for key in reports if key.startswith(FURTHER_HEAD)):
        name = key.removeprefix(FURTHER_HEAD).replace("_", " ").capitalize()
        tasks[key] = ("image-classification", name, ("accuracy", "balanced_accuracy", "f1"))
    return [
        {
            "task": {"type": task, "name": name},
            "dataset": {"type": reports[key].data_name, "name": reports[key].data_description},
            "metrics": [
                {"type": metric, "name": metric.replace("_", " "), "value": round(reports[key].figures[metric], 4)}
                for metric in metrics
                if reports[key].figures.get(metric) is not None
            ],
        }
        for key, (task, name, metrics) in tasks.items()
        if key in reports
    ]


def _training(report: Report | None) -> str:
    if report is None:
        return "## How it was trained\n\nNot recorded for this checkpoint (`training.json`).\n"
    template = _template("card_training.md")
    missing = [name for name in template.get_identifiers() if name not in report.figures]
    if missing:
        raise ValueError(f"training.json lacks what the card says about the training: {', '.join(missing)}")
    return template.substitute({name: figure(value) for name, value in report.figures.items()})


def _template(name: str) -> Template:
    return Template((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _head_rows(config: GPTFaceConfig) -> Iterator[str]:
    """Rows of the table of data and terms about the trained heads."""
    if config.image_reader is not None:
        told = "the states that the transformer makes of codes, on all of these faces, then the labels of its heads"
        yield f"| pixel reader | {told} | {HEAD_TERMS['pixels']} |"
    for name, head in config.heads.items():
        if head.get("trained"):
            read = "pixels" if config.reads_pixels(name) else "codes"
            data = HEAD_DATA.get((name, read), "not recorded")
            yield f"| {name} head, reads {read} | {data} | {HEAD_TERMS[read]} |"


def _checkpoint_facts(folder: Path) -> dict[str, Any]:
    config = GPTFaceConfig.from_pretrained(folder)
    tokenizer = config.image_tokenizer_config
    trained = [f'"{name}" ({len(head["labels"])})' for name, head in config.heads.items() if head.get("trained")]
    return {
        "image_size": tokenizer.image_size,
        "cell": tokenizer.downsample_factor,
        "grid_size": config.grid_size,
        "num_codes": f"{config.num_codes:,}",
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": f"{config.vocab_size:,}",
        "heads": " and ".join(trained) or "(none trained)",
        "head_rows": "\n".join(_head_rows(config)),
        "group_rows": GROUP_ROWS["codes" if config.image_reader is None else "pixels"],
        "parameters": f"{sum(_parameter_counts(folder)) / 1e6:.1f}",
    }


def _parameter_counts(folder: Path) -> Iterator[int]:
    """Entries of each tensor, out of the headers of the safetensors files."""
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as opened:
            header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__":
                count = 1
                for side in entry["shape"]:
                    count *= side
                yield count
