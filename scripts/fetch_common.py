"""What the model converters share: one error type, safetensors output, hashes, folders made whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile

import numpy as np

SIDECAR = "kvanalyze.json"  # the identity of a converted model, read by runtime/model/model_folder.cc

# A type's name, and a NumPy type that holds its bits (NumPy has no bfloat16).
DTYPES = {
    "float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16,
    "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8,
    "bool": np.bool_,
}


class FetchError(Exception):
    """What the user reads, on one line."""

    told = True


def models_folder(cache_dir):
    """Where converted models are kept."""
    if cache_dir:
        return os.path.join(os.path.abspath(cache_dir), "models")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "kvanalyze", "models")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_safetensors(path, tensors):
    """tensors: {name: (safetensors type name, C-contiguous array)}"""
    from safetensors import TensorSpec, serialize_file

    specs = {}
    for name, (dtype, array) in tensors.items():
        assert array.flags.c_contiguous and array.dtype == DTYPES[dtype], name
        specs[name] = TensorSpec(dtype=dtype, shape=list(array.shape),
                                 data_ptr=array.ctypes.data, data_len=array.nbytes)
    serialize_file(specs, path, {"format": "pt"})
    os.chmod(path, 0o644)


def tensor_hash(folder):
    """The hash that TensorArchive::hash() (runtime/io/safetensors.h) gives for the model in `folder`."""
    import xxhash

    tensors = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        data = np.memmap(os.path.join(folder, file), np.uint8, "r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = entry["dtype"], entry["shape"], data[start + begin:start + end]
    state = xxhash.xxh3_128()
    for name in sorted(tensors, key=str.encode):
        dtype, shape, data = tensors[name]
        state.update(f"{name}\n{dtype}\n{','.join(map(str, shape))}\n".encode())
        state.update(data)
    return f"xxh3:{state.hexdigest()}"


@contextlib.contextmanager
def whole_folder(target):
    """A temporary folder beside `target` that takes its name at the end; on an error nothing is left."""
    parent = os.path.dirname(target)
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".tmp-", dir=parent)
    except OSError as error:
        raise FetchError(f"{parent}: cannot write: {error.strerror}") from error
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        try:
            os.rename(temporary, target)
        except OSError:
            # Another process finished the same folder first; its content is the same.
            if not os.path.exists(os.path.join(target, SIDECAR)):
                raise
    except OSError as error:
        raise FetchError(f"{target}: cannot write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
