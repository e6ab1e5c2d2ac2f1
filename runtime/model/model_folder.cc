#include "runtime/model/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/model/fetch_script.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSidecar = "kvanalyze.json";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Whether everything is there; a download that was broken off has an index and lacks shards.
bool is_complete(const fs::path& folder) {
  if (!is_there(folder / "config.json")) return false;
  if (is_there(folder / "model.safetensors")) return true;
  const fs::path index = folder / "model.safetensors.index.json";
  if (!is_there(index)) return false;
  const JsonNode weight_map = JsonNode::parse_file(index.string()).at("weight_map");
  const auto names = weight_map.keys();
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return is_there(folder / weight_map.at(name).as_string());
  });
}

std::string lower(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return name;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path user_cache() {
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return cache;
  return fs::path(environment("HOME")) / ".cache";
}

std::vector<fs::path> converted_caches(const FindModelOptions& options) {
  std::vector<fs::path> folders;
  if (!options.cache_dir.empty()) folders.push_back(fs::path(options.cache_dir) / "models");
  folders.push_back(user_cache() / "kvanalyze" / "models");
  return folders;
}

std::vector<fs::path> hub_caches(const FindModelOptions& options) {
  std::vector<fs::path> folders;
  if (!options.cache_dir.empty()) {
    folders.push_back(fs::path(options.cache_dir) / "hub");
    folders.push_back(options.cache_dir);
  }
  if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) folders.push_back(cache);
  if (const std::string home = environment("HF_HOME"); !home.empty())
    folders.push_back(fs::path(home) / "hub");
  folders.push_back(user_cache() / "huggingface" / "hub");
  return folders;
}

fs::path scripts_folder(const FindModelOptions& options) {
  if (!options.scripts_dir.empty()) return options.scripts_dir;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share" / "kvanalyze" / "scripts";
  return is_there(installed / "models.json") ? installed : fs::path(KVA_SCRIPTS_SOURCE);
}

// models.json: where a short name leads, and what is known about a repository.
class KnownModels {
 public:
  explicit KnownModels(const FindModelOptions& options)
      : models_(JsonNode::parse_file((scripts_folder(options) / "models.json").string(),
                                     {.max_bytes = 1 << 20, .max_depth = 8, .unique_keys = true})
                    .at("models")) {}

  std::vector<std::string> names() const { return models_.keys(); }
  std::optional<JsonNode> find(const std::string& name) const { return models_.find(lower(name)); }
  std::string variant_of(const std::string& repository) const {
    for (const std::string& name : names())
      if (const JsonNode model = models_.at(name); model.get_string("hub", "") == repository)
        return model.get_string("variant", "");
    return "";
  }

 private:
  JsonNode models_;
};

// organisation/name, of letters, digits and "._-", no part starting with "." or "-".
bool is_hub_id(std::string_view name) {
  const auto slash = name.find('/');
  if (slash == std::string_view::npos || name.size() > 200) return false;
  const auto plain = [](std::string_view part) {
    return !part.empty() && part[0] != '.' && part[0] != '-' &&
           std::all_of(part.begin(), part.end(), [](unsigned char c) {
             return c < 0x80 && (std::isalnum(c) || c == '.' || c == '_' || c == '-');
           });
  };
  return plain(name.substr(0, slash)) && plain(name.substr(slash + 1));
}

std::string with_dashes(std::string repository) {
  if (const auto slash = repository.find('/'); slash != std::string::npos) repository.replace(slash, 1, "--");
  return repository;
}

// What the folder itself says: its sidecar, else its place in Hugging Face's cache.
ModelIdentity identity_of(const fs::path& folder, const KnownModels& known) {
  ModelIdentity identity;
  const fs::path sidecar = folder / kSidecar;
  if (is_there(sidecar)) {
    const JsonNode node = JsonNode::parse_file(sidecar.string(), {.max_bytes = 1 << 20, .max_depth = 8});
    identity.name = node.get_string("name", "");
    identity.repository = node.get_string("repository", "");
    identity.revision = node.get_string("revision", "");
    identity.variant = node.get_string("variant", known.variant_of(identity.repository));
    identity.source_quantization = node.get_string("source_quantization", "");
    identity.tensor_hash = node.get_string("tensor_hash", "");
  } else {
    std::error_code error;
    const fs::path place = fs::absolute(folder / "", error).lexically_normal().parent_path();
    std::string owner = place.parent_path().parent_path().filename().string();
    if (place.parent_path().filename() == "snapshots" && owner.starts_with("models--")) {
      owner = owner.substr(8);
      if (const auto dashes = owner.find("--"); dashes != std::string::npos) owner.replace(dashes, 2, "/");
      identity.name = identity.repository = owner;
      identity.revision = place.filename().string();
      identity.variant = known.variant_of(owner);
      // What cannot be read without dequantizing says so in its config.
      const JsonNode config = JsonNode::parse_file((folder / "config.json").string(), {.max_bytes = 1 << 20});
      identity.source_quantization = config.has("quantization_config") ? "" : "none";
    }
  }
  if (identity.name.empty()) identity.name = "folder " + folder.lexically_normal().string();
  return identity;
}

// Finished conversions carry a sidecar that names where they came from.
std::optional<fs::path> find_converted(const std::string& key, const std::string& repository,
                                       const std::string& revision, const FindModelOptions& options) {
  for (const fs::path& cache : converted_caches(options)) {
    const fs::path folder = cache / key;
    if (!is_complete(folder) || !is_there(folder / kSidecar)) continue;
    const JsonNode sidecar = JsonNode::parse_file((folder / kSidecar).string(), {.max_bytes = 1 << 20});
    if (sidecar.get_string("repository", "") == repository && sidecar.get_string("revision", "") == revision)
      return folder;
  }
  return std::nullopt;
}

// The commit that a branch or tag stands for in this cache; a commit stands for itself.
std::string resolved_revision(const fs::path& model, const std::string& revision) {
  const fs::path ref = model / "refs" / revision;
  if (!is_there(ref)) return revision;
  std::string commit = read_text_file(ref.string(), 200);
  while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back()))) commit.pop_back();
  return commit.find('/') == std::string::npos ? commit : "";
}

std::optional<fs::path> find_hub_model(const std::string& repository, const FindModelOptions& options) {
  const std::string revision = options.revision.empty() ? "main" : options.revision;
  for (const fs::path& cache : hub_caches(options)) {
    const fs::path model = cache / ("models--" + with_dashes(repository));
    const std::string commit = resolved_revision(model, revision);
    if (commit.empty()) continue;
    const fs::path snapshot = model / "snapshots" / commit;
    if (is_complete(snapshot)) return snapshot;
    // A repository of pytorch_model.bin alone was converted under its commit.
    if (auto folder = find_converted(with_dashes(repository) + "@" + commit, repository, commit, options))
      return folder;
  }
  return std::nullopt;
}

ModelFolder fetch(const std::string& name, const FindModelOptions& options, const KnownModels& known) {
  const fs::path script = scripts_folder(options) / "fetch_model.py";
  if (!is_there(script))
    throw InputError(fmt::format("{}: not found on this machine, and {} is missing; give --model a folder",
                                 name, script.string()));
  const fs::path python = user_cache() / "kvanalyze" / "venv" / "bin" / "python";
  std::vector<std::string> command = {is_there(python) ? python.string() : "python3", script.string(),
                                      "--program"};
  if (!options.cache_dir.empty()) command.insert(command.end(), {"--cache-dir=" + options.cache_dir});
  if (!options.revision.empty()) command.insert(command.end(), {"--revision=" + options.revision});
  command.push_back(name);
  const fs::path folder = last_line_of(command);
  if (!is_complete(folder))
    throw InputError(
        fmt::format("{}: {} left no usable model in {}", name, script.string(), folder.string()));
  return {folder.string(), identity_of(folder, known)};
}

[[noreturn]] void unknown_name(const std::string& name, const KnownModels& known) {
  std::error_code error;
  if (fs::is_directory(name, error))
    throw InputError(fmt::format("{}: expected a model folder, found no config.json in it", name));
  throw InputError(
      fmt::format("{}: neither a model folder, nor a hub id (organisation/name), nor a short name ({})", name,
                  fmt::join(known.names(), ", ")));
}

}  // namespace

ModelFolder find_model(const std::string& name, const FindModelOptions& options) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (name.empty() || std::any_of(name.begin(), name.end(), is_control))
    throw InputError(fmt::format("--model: expected a folder, a short name or a hub id, found {}",
                                 name.empty() ? "nothing" : "control characters"));
  if (options.revision.find("..") != std::string::npos)
    throw InputError(fmt::format("--revision: expected a branch, tag or commit, found {}", options.revision));
  const KnownModels known(options);
  if (is_there(fs::path(name) / "config.json")) return {name, identity_of(name, known)};
  const auto alias = known.find(name);
  if (!alias && !is_hub_id(name)) unknown_name(name, known);
  std::optional<fs::path> found;
  if (alias && alias->has("pypi")) {
    const std::string version = alias->at("version").as_string();
    if (!options.revision.empty() && options.revision != version)
      throw InputError(fmt::format("{}: expected revision {}, found {}", name, version, options.revision));
    found = find_converted(lower(name), "PyPI " + alias->at("pypi").as_string(), version, options);
  } else {
    found = find_hub_model(alias ? alias->at("hub").as_string() : name, options);
  }
  if (found) return {found->string(), identity_of(*found, known)};
  if (!options.allow_fetch)
    throw InputError(fmt::format("{}: not found on this machine, and fetching was not allowed", name));
  return fetch(name, options, known);
}

ModelIdentity identify(const ModelFolder& folder, const TensorArchive& tensors) {
  ModelIdentity identity = folder.identity;
  const std::string hash = tensors.hash();
  if (!identity.tensor_hash.empty() && identity.tensor_hash != hash)
    throw InputError(fmt::format("{}: expected the weights of {} ({}, as {} records), found others ({})",
                                 folder.path, identity.name, identity.tensor_hash, kSidecar, hash));
  identity.tensor_hash = hash;
  return identity;
}

std::vector<std::string> model_short_names(const FindModelOptions& options) {
  return KnownModels(options).names();
}

}  // namespace kva
