"""The page to edit faces on → a Space: a repository that Hugging Face runs, or anybody by `python app.py`."""

import shutil
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from gptface.processing.whole_files import whole_folder

from .hub_export import CHECKOUT, checked_weights, copy_checkpoint, license_files

#: What of the package the page is made of.
PACKAGES = ("gptface", "gptface.modeling_gptface", "gptface.processing", "gptface.pipelines")
#: Release of Gradio that the page was tested with.
GRADIO_VERSION = "6.31.0"

CARD = f"""\
---
title: GPTFace
emoji: 🙂
colorFrom: indigo
colorTo: blue
sdk: gradio
sdk_version: {GRADIO_VERSION}
app_file: app.py
pinned: false
license: other
---

Edits a face in a photo under a prompt. What is saved says that it is edited. Get the consent of the people in the
photos, and deceive nobody. The code is under Apache-2.0, the weights are for non-commercial research only (LICENSES).
"""


def export_space(source: str | Path, output: str | Path) -> list[str]:
    """
    Writes the Space: `app.py`, the part of the package that it uses with the checkpoint in it, `requirements.txt`,
    licences, and README.md with the header that a Space needs.

    Args:
        source: folder of the checkpoint.
        output: new folder of the repository.

    Returns:
        The names of the files in `output`, sorted.

    Raises:
        OSError: a file is missing, or `output` exists and is not empty.
        ConversionError: where `source` holds no complete GPTFace checkpoint.
    """
    source, output = Path(source), Path(output)
    weights = checked_weights(source)
    with whole_folder(output) as folder:
        for name in PACKAGES:
            _copy_modules(name, folder / name.replace(".", "/"))
        assets = folder / "gptface" / "assets"
        assets.mkdir()
        copy_checkpoint(source, weights, assets)
        shutil.copyfile(_folder_of("gptface") / "demo" / "app.py", folder / "app.py")
        for name, text in license_files():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "requirements.txt").write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(CARD, encoding="utf-8")
    return sorted(file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file())


def _folder_of(package: str) -> Path:
    return Path(str(getattr(find_spec(package), "origin", None))).parent


def _copy_modules(package: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in _folder_of(package).glob("*.py"):
        if file.name not in ("cli.py", "__main__.py"):
            shutil.copyfile(file, target / file.name)


def _requirements() -> list[str]:
    """What the page needs beside Gradio, which the card names: of a checkout or of the installed distribution."""
    if (CHECKOUT / "pyproject.toml").is_file():
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["detect"]]
    found = []
    for line in metadata.requires("gptface") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "detect"}):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found
