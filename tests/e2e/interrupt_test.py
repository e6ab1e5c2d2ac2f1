"""Ctrl-C ends within two seconds and leaves either the old report or none; captures likewise."""
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    import safetensors  # noqa: F401
except ImportError:
    print("safetensors is not installed; skipped")
    sys.exit(77)

from harness import PROGRAM, check, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-interrupt-"))
# Large enough to be busy for many seconds.
model = random_model(work / "model", "--layers", 8, "--heads", 12, "--kv-heads", 12, "--head-dim", 64)
small = random_model(work / "small")


def interrupted(delay_s, *arguments):
    process = subprocess.Popen([str(PROGRAM), *map(str, arguments)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    time.sleep(delay_s)
    check(process.poll() is None, f"{arguments[0]} ended before it was interrupted: the test needs a longer job")
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    seconds = time.monotonic() - start
    check(seconds < 2, f"interrupted after {delay_s} s: took {seconds:.1f} s to end")
    check(process.returncode == 130, f"interrupted: expected exit code 130, found {process.returncode}: {stderr[-300:]}")


folder = work / "report"
done = run("--model", small, "--quick", "--no-plots", "--quiet", "--output-dir", folder)
check(done.returncode == 0, done.stderr)
before = {path.name: path.read_bytes() for path in folder.iterdir()}
for delay in (0.3, 2.0, 5.0):
    interrupted(delay, "--model", model, "--output-dir", folder)
after = {path.name: path.read_bytes() for path in folder.iterdir()}
check(before == after, f"the old report changed: {sorted(before)} -> {sorted(after)}")

interrupted(2.0, "capture", "--model", model, "--output-dir", work / "capture")
(work / "text.txt").write_text("Some words to hide a number in, and to score. " * 200)
interrupted(4.0, "eval", "--model", model, "--text", work / "text.txt", "--recipe", "dense(f32)", "--context", 128, "--tokens", 16,
            "--chunk", 16, "--no-timing", "--passkey", "--output-dir", work / "passkey")
left = [path.name for path in work.iterdir() if path.name not in {"model", "small", "report", "text.txt"}]
check(not left, f"interrupted jobs left {left}")

shutil.rmtree(work)
finish()
