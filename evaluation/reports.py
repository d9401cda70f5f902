"""Folders of evaluation reports: NAME.json = {"command": "gptface evaluate …", "model": hash, "report": {…}}."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptface.processing.whole_files import write_text

#: Begins the names of the reports of heads that have no kind of evaluation of their own.
FURTHER_HEAD = "head_"
#: Data files by their name, as the card calls them.
DATA = {
    "validation/celeba178": "CelebA, people who are not in the training set",
    "validation/celebamask256": "CelebAMask-HQ, faces that the face parser was not trained on",
    "validation/rafdb100": "RAF-DB, a tenth of its training part, in colour",
    "validation/ferplus48": "FER2013, public test split, the majority of FER+ without contempt, unknown and no face",
    "validation/fer48": "FER2013, public test split",
    "train/utkface128": "UTKFace, every tenth row; no head that reads pixels was trained on it",
}


@dataclass(frozen=True)
class Report:
    """
    Args:
        command: what printed the figures.
        figures: what it printed.
        model: hash of the weights (see `gptface.processing.provenance`); None where the file does not say.
    """

    command: str
    figures: dict[str, Any]
    model: str | None = None

    @property
    def data_name(self) -> str:
        """The data file of the command without folder and ending; "" where it names none."""
        words = shlex.split(self.command)
        path = words[words.index("--data") + 1] if "--data" in words[:-1] else ""
        return os.path.splitext(path.removeprefix("DATA_DIR/"))[0]

    @property
    def data_description(self) -> str:
        """What the data are, in words where they are known."""
        return DATA.get(self.data_name, self.data_name)


def read_reports(folder: str | Path) -> dict[str, Report]:
    """
    The reports in a folder by the names of their files.

    Raises:
        OSError: there is no such folder.
        ValueError: a file that is no report, or reports of different checkpoints.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: `python -m gptface.evaluation.suite` writes one")
    reports = {file.stem: _read(file) for file in sorted(folder.glob("*.json"))}
    models = {report.model: name for name, report in reports.items() if report.model is not None}
    if len(models) > 1:
        names = " and ".join(f"{name}.json ({model})" for model, name in models.items())
        raise ValueError(f"the reports are of different checkpoints: {names}; measure again what is old")
    return reports


def _read(file: Path) -> Report:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("command"), str)
        or not isinstance(content.get("report"), dict)
    ):
        raise ValueError(f'{file} must hold {{"command": "gptface evaluate …", "report": {{…}}}}')
    return Report(content["command"], content["report"], content.get("model"))


def write_report(file: Path, command: str, figures: Mapping[str, Any], model: str | None) -> None:
    """Writes a report; the file appears whole."""
    content = {"command": command, "model": model, "report": figures}
    write_text(file, json.dumps(content, indent=1) + "\n")
