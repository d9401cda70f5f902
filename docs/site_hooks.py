"""Hooks of mkdocs: the package as it is installed for the reference, files beside docs/ that pages link to, formulas.

Pages are also read where the repository is browsed, so a link leads to a file of the repository from the page's own
place in it. Files outside of docs/ (the model card, pictures, licences) stand in the site under their own names.
"""

import argparse
import posixpath
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
FORMULA = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = "<!-- commands -->"
REFERENCE = re.compile(r"\[<code>~?([\w.]+)</code>\]")
TYPE = re.compile(r"<code>(`[^<]*)</code>")
#: The sources as an installation has them; gone with the process.
_installed: list[tempfile.TemporaryDirectory] = []


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """mkdocstrings reads sources without importing them: it is shown the folders where an installation has them."""
    _installed[:] = [tempfile.TemporaryDirectory(prefix="gptface-docs-")]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    left_out = shutil.ignore_patterns("assets", "__pycache__")
    for name, path in packages.items():
        target = Path(_installed[0].name, *name.split("."))
        shutil.copytree(ROOT / path, target, ignore=left_out, dirs_exist_ok=True)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_installed[0].name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside of docs/ that pages link to, and those that these link to."""
    waiting = [DOCS + file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            # README would be the first page in the place of index.md
            known = target.startswith(DOCS) or target == "README.md" or files.get_file_from_path(target) is not None
            if known or not (ROOT / target).is_file():
                continue
            source = str(ROOT / target)
            file = File.generated(config, target, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(file)
            if file.is_documentation_page():
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as they are in the site, formulas as MathML, which browsers draw themselves, and the help of commands."""
    place = _place(page.file)

    def in_site(link: re.Match[str]) -> str:
        target = _resolve(place, link[1]).removeprefix(DOCS)
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    markdown = LINK.sub(in_site, markdown)
    markdown = FORMULA.sub(lambda formula: f"<p>{convert(formula[1], display='block')}</p>", markdown)
    return markdown.replace(COMMANDS, "\n".join(_commands()) if COMMANDS in markdown else COMMANDS)


def on_page_content(html: str, **_: Any) -> str:
    """
    Docstrings as transformers writes them: references, [`GPTFaceModel.forward`], lead to public names; types, (`int`,
    *optional*), lose the marks.
    """
    html = TYPE.sub(lambda kind: f"<code>{re.sub('[`*]', '', kind[1])}</code>", html)
    return REFERENCE.sub(r'<autoref optional identifier="gptface.\1"><code>\1</code></autoref>', html)


def _commands() -> Iterator[str]:
    """The help of each command in Markdown."""
    if find_spec("gptface") is None:  # a checkout that is not installed
        sys.path.append(str(ROOT))
    from gptface.cli import build_parser

    waiting = [build_parser()]
    while waiting:
        parser = waiting.pop(0)
        parser.formatter_class = partial(parser.formatter_class, width=86)
        yield f"## `{parser.prog}`\n\n```text\n{parser.format_help()}```\n"
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting[:0] = action.choices.values()


def _place(file: File) -> str:
    """A page's path in the repository."""
    return file.src_uri if file.generated_by else DOCS + file.src_uri


def _resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _targets(page: str) -> list[str]:
    """Files of the repository that a page links to."""
    return [_resolve(page, link) for link in LINK.findall((ROOT / page).read_text())]
