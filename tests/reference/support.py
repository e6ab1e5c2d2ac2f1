"""What tests of the NumPy reference (scripts/reference_*.py) share. To be imported first: it finds the scripts, in
the source folder that is the test's first argument, and skips the test where a package is missing."""
import pathlib
import sys

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
MODELS = ROOT / "tests" / "fixtures" / "models"
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import numpy as np
    import safetensors  # noqa: F401
    import tokenizers  # noqa: F401
    import xxhash  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def page(*rows):
    return np.array(rows, dtype=np.float32)
