"""cmake --install, find_package(kvanalyze) and the installed example: builds, links, runs."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import safetensors  # noqa: F401
except ImportError:
    print("safetensors is not installed; skipped")
    sys.exit(77)

from harness import SOURCE, check, finish, random_model

build = pathlib.Path(sys.argv[2])
work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-install-"))


def step(label, *command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    check(done.returncode == 0, f"{label}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done


step("install", "cmake", "--install", build, "--prefix", work / "prefix")
step("configure", "cmake", "-S", SOURCE / "docs/examples/embed", "-B", work / "build", "-G", "Ninja",
     f"-DCMAKE_PREFIX_PATH={work / 'prefix'}")
step("build", "cmake", "--build", work / "build")
model = random_model(work / "model")
done = step("example", work / "build/embed", model, "A prompt that is long enough for a few pages. " * 4,
            work / "report")
check((work / "report/report.json").exists(), "the example wrote no report")
check("bytes of report" in done.stdout, done.stdout)
(work / "text.txt").write_text("A text that is long enough for a window of tokens. " * 20)
done = step("example with recipes", work / "build/embed", model, "A prompt that is long enough for a few pages. " * 4,
            work / "report", work / "text.txt", "quant(bits=8)")
check((work / "report-ab/report.json").exists() and "side by side" in done.stdout, "the example judged no recipe")
step("installed program", work / "prefix/bin/kvanalyze", "--version")
done = subprocess.run([work / "build/embed", work / "nowhere", "x", work / "other"], capture_output=True, text=True)
check(done.returncode == 1 and "nowhere" in done.stderr, f"the facade throws one clear line: {done.stderr}")

shutil.rmtree(work)
finish()
