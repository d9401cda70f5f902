"""The order of the folders: who reads a module need not know what stands above it, and the remote code is flat."""

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Folders from the lowest to the highest; a module imports from its own folder and from lower ones.
FLOORS = (
    "modeling_gptface",
    "processing",
    "metrics",
    "data",
    "pipelines",
    "training",
    "evaluation",
    "conversion",
    "gptface",
)
#: On top of the package, outside the wheel.
OUTSIDE = ("lab", "benchmarks")


@cache
def modules() -> dict[str, Path]:
    """Name as it is imported → file, of the package and of what stands on top of it."""
    found = {}
    for folder in (*FLOORS, *OUTSIDE):
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if folder in ("gptface", *OUTSIDE) else f"gptface.{name}"] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules out of `known` that a file imports, inside functions and for type checkers too."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            inside = {f"{base}.{alias.name}" for alias in node.names}
            found |= {base, *inside} if not inside <= known.keys() else inside
    return found & known.keys() - {name}


def floor(name: str) -> int:
    """Height of a module; everything outside the package stands above it."""
    parts = name.split(".")
    if parts[0] in OUTSIDE:
        return len(FLOORS)
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in FLOORS else FLOORS.index("gptface")


@cache
def graph() -> dict[str, set[str]]:
    return {name: imports(name, path, modules()) for name, path in modules().items()}


def test_imports_point_downwards():
    upwards = [
        f"{name} imports {imported}"
        for name, found in graph().items()
        for imported in found
        if floor(imported) > floor(name)
    ]
    assert not upwards


def test_no_files_import_each_other():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_file_names_are_unique_in_the_package():
    """`gptface export` puts all modules into one folder. The commands are not exported."""
    names = Counter(
        path.name
        for name, path in modules().items()
        if path.stem != "__init__" and floor(name) < FLOORS.index("gptface")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_upward_imports_and_cycles_would_be_seen(tmp_path):
    (tmp_path / "low.py").write_text("def f():\n    from .high import g\n    from gptface.pipelines import high\n")
    known = {"gptface.data.high": tmp_path, "gptface.pipelines.high": tmp_path, "gptface.data.low": tmp_path}
    found = imports("gptface.data.low", tmp_path / "low.py", known)
    assert found == {"gptface.data.high", "gptface.pipelines.high"}
    assert floor("gptface.pipelines.high") > floor("gptface.data.low") < floor("lab.pack_faces")
