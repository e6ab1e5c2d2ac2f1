"""Fails on an include that points the wrong way: kernels -> runtime -> {compressors, analyzer} -> reports -> cli.

Also: FAISS and Eigen only in .cc files, CUDA headers only in .cu and .cuh files.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
ALLOWED = {
    "kernels": {"kernels"},
    "runtime": {"kernels", "runtime"},
    "compressors": {"kernels", "runtime", "compressors"},
    "analyzer": {"kernels", "runtime", "analyzer"},
    "reports": {"kernels", "runtime", "compressors", "analyzer", "reports"},
    "cli": {"kernels", "runtime", "compressors", "analyzer", "reports", "cli"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
CUDA = re.compile(r"^(cuda|cublas|cusolver|thrust/|cub/)")

failures = []
files = 0
for folder, allowed in ALLOWED.items():
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
            continue
        files += 1
        for include in INCLUDE.findall(path.read_text()):
            first = include.split("/")[0]
            where = f"{path.relative_to(ROOT)} includes {include}"
            if first in ALLOWED and "/" in include and first not in allowed:
                failures.append(f"{where}: wrong direction")
            if first in {"faiss", "Eigen"} and path.suffix != ".cc":
                failures.append(f"{where}: only .cc files may")
            if CUDA.match(include) and path.suffix not in {".cu", ".cuh"}:
                failures.append(f"{where}: only .cu and .cuh files may")

print("\n".join(failures) or f"{files} files, every include points the right way")
sys.exit(1 if failures or files == 0 else 0)
