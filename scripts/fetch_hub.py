"""Fetches a model of the Hugging Face hub: safetensors as they are, else pytorch_model.bin converted."""

import json
import os

from fetch_common import (SIDECAR, FetchError, models_folder, sha256_of, tensor_hash, whole_folder, write_json,
                          write_safetensors)
from fetch_torch_bin import read_torch_bin

TEXT_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt"]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BIN_SINGLE, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


class Unreachable(FetchError):
    pass


def fetch_from_hub(repository, revision, cache_dir):
    """The folder of the model. cache_dir: where models are kept, in both layouts; None for the usual places."""
    hub_cache = os.path.join(os.path.abspath(cache_dir), "hub") if cache_dir else None
    try:
        source, commit = download(repository, revision, hub_cache)
    except Unreachable as error:
        source, commit = cached(repository, revision, hub_cache, error)
    if os.path.exists(os.path.join(source, SINGLE)) or os.path.exists(os.path.join(source, INDEX)):
        return source
    return convert_bins(source, repository, commit, cache_dir)


def download(repository, revision, hub_cache):
    """(folder, commit) with the text files and the weights, safetensors where there are some."""
    from huggingface_hub import HfApi, snapshot_download

    info = asked(repository, revision, lambda: HfApi().model_info(repository, revision=revision, timeout=15))
    files = {sibling.rfilename for sibling in info.siblings}
    if "config.json" not in files:
        raise FetchError(f"{repository}: it has no config.json: not a model in Hugging Face layout")
    for names in ([SINGLE], [INDEX, "model-*.safetensors"], [BIN_SINGLE], [BIN_INDEX, "pytorch_model-*.bin"]):
        if names[0] in files:
            return asked(repository, revision, lambda: snapshot_download(
                repository, revision=info.sha, cache_dir=hub_cache, allow_patterns=TEXT_FILES + names)), info.sha
    raise FetchError(f"{repository}: it has neither {SINGLE} nor {BIN_SINGLE}")


def cached(repository, revision, hub_cache, unreachable):
    """(folder, commit) of what an earlier download left, where the hub cannot be asked."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, revision=revision, cache_dir=hub_cache, local_files_only=True)
    except Exception as error:
        raise unreachable from error
    if not any(os.path.exists(os.path.join(folder, name)) for name in (SINGLE, INDEX, BIN_SINGLE, BIN_INDEX)):
        raise unreachable
    return folder, os.path.basename(folder)


def asked(repository, revision, call):
    """call(), with the hub's many errors each in one line."""
    import huggingface_hub.errors as hub
    import httpx2

    try:
        return call()
    except hub.GatedRepoError as error:
        raise FetchError(f"{repository}: gated: accept its licence on its page at the hub, then log in with "
                         "'hf auth login' (or set HF_TOKEN) and run this again") from error
    except hub.DisabledRepoError as error:
        raise FetchError(f"{repository}: the hub has disabled this repository") from error
    except hub.RevisionNotFoundError as error:
        raise FetchError(f"{repository}: it has no revision {revision!r}") from error
    except hub.RepositoryNotFoundError as error:
        raise FetchError(f"{repository}: the hub has no such model (or it is private: log in with "
                         "'hf auth login')") from error
    except hub.HFValidationError as error:
        raise FetchError(f"{repository}: neither a folder, a known short name nor a hub id "
                         "(organisation/name)") from error
    except hub.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise FetchError(f"{repository}: the hub answered {code}; try again later") from error
    except (httpx2.HTTPError, hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError,
            TimeoutError) as error:
        raise Unreachable(f"{repository}: the Hugging Face hub cannot be reached from here (no network?); give "
                          "--model a folder, or a model that the Hugging Face cache holds") from error
    except OSError as error:
        raise FetchError(f"{repository}: {error.strerror or type(error).__name__}") from error


def convert_bins(source, repository, revision, cache_dir):
    target = os.path.join(models_folder(cache_dir), f"{repository.replace('/', '--')}@{revision}")
    if os.path.exists(os.path.join(target, SIDECAR)):
        return target
    bins = [BIN_SINGLE]
    if not os.path.exists(os.path.join(source, BIN_SINGLE)):
        with open(os.path.join(source, BIN_INDEX), encoding="utf-8") as file:
            bins = sorted(set(json.load(file)["weight_map"].values()))
    with whole_folder(target) as folder:
        hashes = write_shards(source, bins, folder)
        for name in TEXT_FILES:
            path = os.path.join(source, name)
            if os.path.exists(path):
                with open(path, "rb") as text, open(os.path.join(folder, name), "wb") as copy:
                    copy.write(text.read())
        write_json(os.path.join(folder, SIDECAR), {
            "version": 1, "name": repository, "repository": repository, "revision": revision,
            "source_quantization": "none", "converted_from": hashes, "tensor_hash": tensor_hash(folder)})
    return target


def write_shards(source, bins, folder):
    """One safetensors file for each checkpoint file; {file: sha256} of what was read."""
    hashes, weight_map, total = {}, {}, 0
    for i, name in enumerate(bins):
        path = os.path.join(source, name)
        if os.path.basename(name) != name or not os.path.exists(path):
            raise FetchError(f"{source}: the index names {name!r}, found no such file")
        tensors = read_torch_bin(path)
        shard = SINGLE if len(bins) == 1 else f"model-{i + 1:05d}-of-{len(bins):05d}.safetensors"
        write_safetensors(os.path.join(folder, shard), tensors)
        weight_map.update({tensor: shard for tensor in tensors})
        total += sum(array.nbytes for _, array in tensors.values())
        hashes[name] = sha256_of(path)
    if len(bins) > 1:
        write_json(os.path.join(folder, INDEX), {"metadata": {"total_size": total}, "weight_map": weight_map})
    return hashes
