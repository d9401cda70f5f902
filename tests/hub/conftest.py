"""
- `exported`: the export of `tiny_checkpoint`. Read only.
"""

from pathlib import Path

import pytest

from gptface.conversion.hub_export import export_hub


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "faces"
    export_hub(tiny_checkpoint, folder)
    return folder
