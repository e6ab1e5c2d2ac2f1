"""Fetches a model of the Hugging Face hub: safetensors as they are, else pytorch_model.bin converted."""

import json
import os

from fetch_common import SIDECAR, FetchError, models_folder, sha256_of, whole_folder, write_json, write_safetensors
from fetch_torch_bin import read_torch_bin

TEXT_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt"]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BIN_SINGLE, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def fetch_from_hub(repository, revision, cache_dir):
    """The folder of the model. cache_dir: where models are kept, for both layouts; None for the usual places."""
    from huggingface_hub import HfApi

    hub_cache = os.path.join(cache_dir, "hub") if cache_dir else None
    info = asked(repository, revision, lambda: HfApi().model_info(repository, revision=revision, timeout=15))
    files = {sibling.rfilename for sibling in info.siblings}
    if "config.json" not in files:
        raise FetchError(f"{repository}: it has no config.json: not a model in Hugging Face layout")
    if SINGLE in files or INDEX in files:
        weights = [SINGLE] if SINGLE in files else [INDEX, "model-*.safetensors"]
        return snapshot(repository, info.sha, hub_cache, TEXT_FILES + weights)
    if BIN_SINGLE not in files and BIN_INDEX not in files:
        raise FetchError(f"{repository}: it has neither {SINGLE} nor {BIN_SINGLE}")
    weights = [BIN_SINGLE] if BIN_SINGLE in files else [BIN_INDEX, "pytorch_model-*.bin"]
    source = snapshot(repository, info.sha, hub_cache, TEXT_FILES + weights)
    return convert_bins(source, repository, info.sha, cache_dir)


def snapshot(repository, revision, hub_cache, patterns):
    from huggingface_hub import snapshot_download

    return asked(repository, revision, lambda: snapshot_download(
        repository, revision=revision, cache_dir=hub_cache, allow_patterns=patterns))


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
        raise FetchError(f"{repository}: the Hugging Face hub cannot be reached from here (no network?); give "
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
            "converted_from": hashes})
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
