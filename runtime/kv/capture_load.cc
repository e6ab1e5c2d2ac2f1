#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"
#include "runtime/io/safetensors.h"
#include "runtime/kv/capture.h"
#include "runtime/kv/capture_manifest.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

// Maps one tensor file and checks it against the manifest.
TensorArchive open_checked(const fs::path& path, const CaptureFile& file, const PageSet& layout, Side side) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error)
    throw InputError(fmt::format("{}: expected a file of the capture: {}", path.string(), error.message()));
  if (static_cast<int64_t>(size) != file.bytes)
    throw InputError(fmt::format("{}: expected {} bytes, found {}; the file is {}", path.string(), file.bytes,
                                 size, static_cast<int64_t>(size) < file.bytes ? "truncated" : "too long"));
  TensorArchive archive = TensorArchive::open_file(path.string());
  const std::string name = capture_tensor_name(side);
  const TensorView& tensor =
      archive.at(name, {layout.page_count(), layout.kv_heads, layout.page_tokens, layout.head_dim});
  if (tensor.dtype != layout.dtype)
    throw InputError(fmt::format("{}: {}: expected the type {}, found {}", path.string(), name,
                                 dtype_name(layout.dtype), dtype_name(tensor.dtype)));
  const std::string hash = bytes_hash({tensor.data, static_cast<std::size_t>(tensor.bytes)});
  if (hash != file.hash)
    throw InputError(fmt::format("{}: checksum of the values: expected {}, found {}; the file is damaged",
                                 path.string(), file.hash, hash));
  return archive;
}

}  // namespace

Capture load_capture(const std::string& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    throw InputError(fmt::format("{}: expected a folder that `kvanalyze capture` wrote", folder));
  const fs::path manifest_path = fs::path(folder) / kManifestName;
  if (!fs::exists(manifest_path, ignored))
    throw InputError(
        fmt::format("{}: missing; expected a folder that `kvanalyze capture` wrote", manifest_path.string()));
  const std::string text = read_text_file(manifest_path.string(), JsonLimits().max_bytes);
  CaptureManifest manifest = parse_manifest(text, manifest_path.string());
  Capture capture;
  capture.pages = std::move(manifest.layout);
  auto archives = std::make_shared<std::vector<TensorArchive>>();
  for (int layer = 0; layer < capture.pages.layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      throw_if_interrupted();
      const CaptureFile& file = manifest.files[side_index(layer, side)];
      archives->push_back(open_checked(fs::path(folder) / file.name, file, capture.pages, side));
      capture.pages.values.push_back(archives->back().find(capture_tensor_name(side))->data);
    }
  }
  capture.pages.owner = std::move(archives);
  auto document = parse_ordered_json(text, manifest_path.string());
  capture.facts = std::make_shared<const nlohmann::ordered_json>(std::move(document["facts"]));
  capture.provenance = std::make_shared<const nlohmann::ordered_json>(std::move(document["provenance"]));
  return capture;
}

}  // namespace kva
