"""
The package's modules → flat remote code, which transformers loads with `trust_remote_code=True` where the package is
missing.

transformers copies an entry module and what it and its siblings name in `from .x import …` into one folder, and for a
local repository into one folder for each entry module. So every class is reached through one entry module: classes
that came from two folders would not recognise each other.
"""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from .report import ConversionError

PACKAGE = "gptface"
ENTRY_MODULE = "gptface_hub"
#: What remote code may import unconditionally; all else stands in a `try:` with an error that says what to install.
REQUIREMENTS = frozenset(
    ("torch", "transformers", "numpy", "PIL", "tqdm", "tokenizers", "safetensors", "huggingface_hub")
)

HEADER = """\
# Written by `gptface export`. A change belongs into the package gptface: the next export overwrites this file.
# SPDX-License-Identifier: Apache-2.0
"""


def remote_code(classes: Iterable[type]) -> dict[str, str]:
    """
    Source files, by name, from which these classes of the package can be imported without the package.

    Raises:
        ConversionError: where a module cannot be flattened; lists why.
    """
    classes = list(classes)
    sources: dict[str, str] = {}
    origins: dict[str, str] = {}
    waiting = sorted({each.__module__ for each in classes})
    while waiting:
        module = waiting.pop()
        file = f"{module.rsplit('.', 1)[1]}.py"
        if origins.setdefault(file, module) != module:
            raise ConversionError("two modules would be one file", [f"{origins[file]} and {module}: {file}"])
        if file not in sources:
            source, imported = flatten_module(module)
            sources[file] = HEADER + source
            waiting.extend(sorted(imported))
    sources[f"{ENTRY_MODULE}.py"] = HEADER + _entry_source(classes)
    return sources


def _entry_source(classes: list[type]) -> str:
    names = sorted(each.__name__ for each in classes)
    imports = sorted(f"from .{each.__module__.rsplit('.', 1)[1]} import {each.__name__}" for each in classes)
    lines = [
        '"""What the Auto classes and pipelines of this repository refer to."""',
        "",
        *imports,
        "",
        f"__all__ = {names!r}",
        "",
        "# `save_pretrained` copies the module of a class and what it imports: from here it reaches all of the code.",
        "for _name in __all__:",
        "    globals()[_name].__module__ = __name__",
    ]
    return "\n".join(lines) + "\n"


def flatten_module(module: str) -> tuple[str, set[str]]:
    """
    Source of a module of the package with `from .sibling import …` for every import from the package, and the names of
    the modules that these meant. An `if TYPE_CHECKING:` at the top level is left out: transformers would take its
    imports for requirements.

    Raises:
        ConversionError: lists the imports that cannot be written that way, and those of packages that a user of the
            remote code need not have.
    """
    source = _read_source(module)
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    imported: set[str] = set()
    problems: list[str] = []
    checks = [node for node in tree.body if isinstance(node, ast.If) and _is_type_checking(node.test)]
    left_out = {id(inner) for check in checks for inner in ast.walk(check)}
    problems += [f"line {check.lineno}: if TYPE_CHECKING with else" for check in checks if check.orelse]
    optional = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in left_out or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        targets = _targets(node, module)
        inside = [target for target in targets if target.split(".")[0] == PACKAGE]
        where = f"line {node.lineno}: {ast.unparse(node)}"
        if not inside:
            foreign = [target for target in targets if not _is_required(target)]
            if foreign and id(node) not in optional:
                problems.append(f"{where} (put it into try:, with an error that says what to install)")
        elif isinstance(node, ast.Import) or not _is_plain_module(inside[0]):
            problems.append(f"{where} (import names out of a module, not modules or packages)")
        else:
            imported.add(inside[0])
            stem = inside[0].rsplit(".", 1)[1]
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(r"from\s+[\w.]+\s+import", f"from .{stem} import", line, count=1)
    if problems:
        raise ConversionError(f"{module} cannot be flattened", problems)
    for check in checks:
        lines[check.lineno - 1 : check.end_lineno] = [""] * ((check.end_lineno or check.lineno) - check.lineno + 1)
    return "".join(lines), imported


def _read_source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConversionError(f"there is no source of {module}", [])
    return Path(spec.origin).read_text(encoding="utf-8")


def _targets(node: ast.Import | ast.ImportFrom, module: str) -> list[str]:
    """Absolute names of the modules that an import statement reads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    name = "." * node.level + (node.module or "")
    return [importlib.util.resolve_name(name, module.rsplit(".", 1)[0])]


def _is_plain_module(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is None


def _is_required(target: str) -> bool:
    package = target.split(".")[0]
    return package in REQUIREMENTS or package in sys.stdlib_module_names


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
