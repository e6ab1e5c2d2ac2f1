"""Every .h compiles alone with g++: nothing needs an include before it, and none needs nvcc."""
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1])
FOLDERS = ("kernels", "runtime", "compressors", "analyzer", "reports", "cli")
if not shutil.which("g++"):
    print("g++ is not installed; skipped")
    sys.exit(77)

# The -inl.h files are Highway's: included once for each target, by .cc files only.
headers = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.h") if not p.stem.endswith("-inl"))


def compile_alone(header):
    return header, subprocess.run(["g++", "-std=c++20", "-fsyntax-only", "-fopenmp", "-x", "c++", f"-I{ROOT}", str(header)],
                                  capture_output=True, text=True)


failed = 0
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for header, done in pool.map(compile_alone, headers):
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        if done.returncode:
            failed += 1
            print(f"{header.relative_to(ROOT)}: {errors[0] if errors else done.stderr[:300]}")
print(f"{len(headers)} headers, {failed} failed")
sys.exit(1 if failed or not headers else 0)
