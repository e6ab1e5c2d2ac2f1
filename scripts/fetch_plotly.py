#!/usr/bin/env python3
"""Puts plotly.min.js (MIT), which report.html carries inside itself, into the project's cache.

  fetch_plotly.py [--output FILE] [--wheel FILE]

The bundle comes out of the PyPI package named below, as this Python has it installed or else from its wheel, is
checked against its SHA-256 and moved into place whole. Nothing is downloaded where the right bundle is already
there. Needs only Python and pip.
"""
import argparse
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "plotly==7.1.0"
MEMBER = "plotly/package_data/plotly.min.js"
SHA256 = "3b6e15d45dbb7fca5bd2094291e961ddc5472cd887009e6009a56dab668d721f"
MAX_BYTES = 16 << 20


def default_output():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(cache) / "kvanalyze" / "assets" / "plotly.min.js"


def is_right(data):
    return hashlib.sha256(data).hexdigest() == SHA256


def installed_bundle():
    spec = importlib.util.find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = pathlib.Path(folder).parent / MEMBER
        if path.is_file() and is_right(data := path.read_bytes()):
            return data
    return None


def download_wheel(folder):
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "-d", str(folder), PACKAGE]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip printed nothing"]
        raise SystemExit(f"fetch_plotly: pip could not download {PACKAGE}: {lines[-1]}")
    return wheels[0]


def bundle_from(wheel):
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(MEMBER).file_size
            if size > MAX_BYTES:
                raise SystemExit(f"fetch_plotly: {wheel}: {MEMBER} has {size} bytes, expected at most {MAX_BYTES}")
            data = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SystemExit(f"fetch_plotly: {wheel}: cannot take {MEMBER} out of it: {error}")
    if not is_right(data):
        found = hashlib.sha256(data).hexdigest()
        raise SystemExit(f"fetch_plotly: {wheel}: {MEMBER} has SHA-256 {found}, expected {SHA256}")
    return data


def write_whole(output, data):
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=output.name, delete=False) as file:
            file.write(data)
            temporary = file.name
        os.chmod(temporary, 0o644)
        os.replace(temporary, output)
    except OSError as error:
        raise SystemExit(f"fetch_plotly: {output}: cannot write: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=default_output())
    parser.add_argument("--wheel", type=pathlib.Path, help=f"a wheel of {PACKAGE} that is already here")
    options = parser.parse_args()
    if options.output.is_file() and is_right(options.output.read_bytes()):
        return
    data = bundle_from(options.wheel) if options.wheel else installed_bundle()
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            data = bundle_from(download_wheel(pathlib.Path(folder)))
    write_whole(options.output, data)
    print(f"fetch_plotly: {options.output} ({len(data)} bytes, {PACKAGE})")


if __name__ == "__main__":
    main()
