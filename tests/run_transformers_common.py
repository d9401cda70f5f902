#!/usr/bin/env python
"""
Runs the common tests of transformers itself on GPTFace: `python tests/run_transformers_common.py [arguments of
pytest]`.

They ship in the source distribution of transformers on the package index, not in its wheel. This script downloads the
one of the installed version (and the small package `parameterized`, which they need) into a cache, adds stand-ins for
the few modules that the distribution leaves out, and runs the classes of `transformers_common_gptface.py` in there. It
needs the network once; the tests do not.

The cache is `$GPTFACE_TEST_CACHE`, or `gptface-tests` in the folder for temporary files.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("GPTFACE_TEST_CACHE", Path(tempfile.gettempdir()) / "gptface-tests"))
SUITE = "transformers_common_gptface.py"

# What the source distribution leaves out: tests of whole other areas, of which the mixins import a name or two.
STAND_INS = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/test_configuration_utils.py": """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["BertModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
""",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, *args, **kwargs):\n    return url\n",
    "tests/fixtures/sample_text.txt": "A smiling woman with brown hair.\n\nA man without glasses, not smiling.\n",
}


def download(requirement: str, target: Path, *options: str) -> Path:
    """The file of a package as pip downloads it; nothing is built."""
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--dest", str(target), *options, requirement], check=True)
    (file,) = target.iterdir()
    return file


def prepare() -> Path:
    """The folder with `tests/` of transformers, complete; made once for each version."""
    home = CACHE / f"transformers-{transformers.__version__}"
    if home.is_dir():
        return home
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        scratch = Path(name)
        archive = download(
            f"transformers=={transformers.__version__}", scratch / "sdist", "--no-binary", "transformers"
        )
        with tarfile.open(archive) as opened:
            opened.extractall(scratch / "source", filter="data")
        (source,) = (scratch / "source").iterdir()
        unpacked = scratch / "home"
        shutil.copytree(source / "tests", unpacked / "tests")
        wheel = download("parameterized", scratch / "parameterized")
        shutil.unpack_archive(wheel, unpacked, "zip")
        for path, text in STAND_INS.items():
            if not (unpacked / path).exists():
                (unpacked / path).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / path).write_text(text)
        (unpacked / "tests/models/gptface").mkdir(parents=True)
        for folder in [unpacked / "tests", *(path for path in (unpacked / "tests").rglob("*") if path.is_dir())]:
            (folder / "__init__.py").touch()
        (unpacked / "pytest.ini").write_text("[pytest]\nfilterwarnings = ignore\n")
        unpacked.rename(home)
    return home


def main(arguments: list[str]) -> int:
    home = prepare()
    suite = shutil.copy(HERE / SUITE, home / "tests/models/gptface" / f"test_{SUITE}")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(home), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments, suite]
    return subprocess.run(command, cwd=home, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
