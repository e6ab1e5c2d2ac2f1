"""What the end-to-end tests share: running kvanalyze as a user would, and small model folders to run it on."""
import json
import pathlib
import subprocess
import sys
import time

SKIPPED = 77  # ctest counts this exit code as a skip
SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None

failures = []
checks = 0


def run(*arguments, timeout=120, **options):
    """Runs kvanalyze; returns the finished process with text output and its seconds."""
    start = time.monotonic()
    done = subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          errors="replace", stdin=subprocess.DEVNULL, **options)
    done.seconds = time.monotonic() - start
    return done


def check(condition, message):
    global checks
    checks += 1
    if not condition:
        failures.append(message)
        print("FAILED:", message, flush=True)


def expect_refusal(label, *arguments, mentions=(), seconds=10, **options):
    """Bad input: exit code 1, one clear line on stderr that names what is wrong, within seconds."""
    done = run(*arguments, **options)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    check(done.returncode == 1, f"{label}: expected exit code 1, found {done.returncode}: {done.stderr[-300:]}")
    check(len(lines) == 1, f"{label}: expected one line on stderr, found {len(lines)}: {done.stderr[-400:]}")
    for mention in mentions:
        check(mention.lower() in done.stderr.lower(), f"{label}: expected '{mention}' in: {done.stderr.strip()[:300]}")
    check(done.seconds < seconds, f"{label}: took {done.seconds:.1f} s")
    return done


def random_model(folder, *options):
    subprocess.run([sys.executable, str(SOURCE / "scripts/make_random_model.py"), str(folder), *map(str, options)],
                   check=True)
    return pathlib.Path(folder)


def edit_json(path, **changes):
    """Sets members of a JSON file; a value of None removes the member."""
    path = pathlib.Path(path)
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = value
        if value is None:
            del content[key]
    path.write_text(json.dumps(content))


def finish():
    print(f"{checks} checks, {len(failures)} failed")
    sys.exit(1 if failures or checks == 0 else 0)
