"""GPTFace: one transformer for faces and language."""
from pathlib import Path
__path__.append(str(Path(__file__).parent.parent))
