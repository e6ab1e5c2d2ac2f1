"""Reads PyTorch checkpoints (pytorch_model.bin) without PyTorch and without running what they contain.

A pickle may call anything; this reader admits the handful of names that a plain dictionary of tensors needs
and refuses every other one by name. Both containers are read: the zip of PyTorch 1.6 and later, and the
stacked pickles before it.
"""

import collections
import pickle
import zipfile

import numpy as np

from fetch_common import DTYPES, FetchError

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Lazy:
    """A tensor whose storage may not have been read yet."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def place(self):
        return id(self.storage), self.offset, self.shape, self.strides

    def array(self, name):
        dtype, data = self.storage["dtype"], self.storage["data"]
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        if data is None or min(self.strides, default=0) < 0 or min(self.shape, default=1) < 0 \
                or (0 not in self.shape and not 0 <= self.offset <= last < data.size):
            raise FetchError(f"tensor {name}: it reaches outside its storage")
        steps = [step * data.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(data[self.offset:], self.shape, steps)
        return dtype, np.ascontiguousarray(view)


class Reader(pickle.Unpickler):
    def __init__(self, file, load_storage):
        super().__init__(file, encoding="utf-8")
        self.load_storage = load_storage
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Lazy(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise FetchError(f"its pickle asks for {module}.{name}, which is no part of a plain checkpoint; refused")

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in DTYPES:
            raise FetchError("its pickle has a reference that is no tensor storage; refused")
        dtype, key, count = pid[1], str(pid[2]), pid[4]
        if len(pid) > 5 and pid[5] is not None:
            raise FetchError("its pickle has views of storages, as PyTorch before 0.4 wrote; not supported")
        if key not in self.storages:
            self.storages[key] = {"dtype": dtype, "count": count, "data": None}
            if self.load_storage:
                self.storages[key]["data"] = self.load_storage(key, dtype, count)
        return self.storages[key]


def read_torch_bin(path):
    """{name: (type name, array)} of a checkpoint. lm_head.weight is left out where it is the same storage as
    another tensor: a tied output needs no second copy."""
    try:
        with open(path, "rb") as file:
            tensors = read_zip(file) if zipfile.is_zipfile(file) else read_legacy(file)
            plain = {name: value for name, value in tensors.items() if isinstance(value, Lazy)}
            places = collections.Counter(value.place() for value in plain.values())
            return {name: value.array(name) for name, value in plain.items()
                    if not (name.endswith("lm_head.weight") and places[value.place()] > 1)}
    except FetchError as error:
        raise FetchError(f"{path}: {error}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError, AttributeError,
            IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise FetchError(f"{path}: not a readable PyTorch checkpoint: {error}") from error


def read_zip(file):
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
    if len(pickles) != 1:
        raise FetchError("expected one data.pkl in the zip")
    root = pickles[0][: -len("data.pkl")]

    def load(key, dtype, count):
        data = np.frombuffer(archive.read(f"{root}data/{key}"), dtype=DTYPES[dtype])
        if data.size != count:
            raise FetchError(f"storage {key}: expected {count} numbers, found {data.size}")
        return data

    with archive.open(pickles[0]) as stream:
        return state_dict(Reader(stream, load).load())


def read_legacy(file):
    file.seek(0)
    if Reader(file, None).load() != LEGACY_MAGIC:
        raise FetchError("expected a PyTorch checkpoint, found something else")
    Reader(file, None).load()  # protocol version
    if Reader(file, None).load().get("little_endian") is not True:
        raise FetchError("it was written on a big-endian machine; not supported")
    reader = Reader(file, None)
    tensors = state_dict(reader.load())
    for key in Reader(file, None).load():
        storage = reader.storages[str(key)]
        count = int.from_bytes(file.read(8), "little")
        size = count * np.dtype(DTYPES[storage["dtype"]]).itemsize
        data = file.read(size)
        if count != storage["count"] or len(data) != size:
            raise FetchError(f"storage {key}: expected {storage['count']} numbers, found {len(data)} bytes "
                             f"for {count} (truncated?)")
        storage["data"] = np.frombuffer(data, dtype=DTYPES[storage["dtype"]])
    return tensors


def state_dict(value):
    if not isinstance(value, dict):
        raise FetchError("expected a dictionary of tensors")
    return value
