// manifest.json of a capture: to and from JSON, checked. docs/formats.md is its specification.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/kv/page_set.h"

namespace kva {

inline constexpr int64_t kCaptureVersion = 1;
inline constexpr const char* kManifestName = "manifest.json";
// Length field, JSON and padding of each tensor file: the values start here, so that NumPy maps them by it.
inline constexpr int64_t kCaptureHeaderBytes = 256;

// One tensor file: a layer's side.
struct CaptureFile {
  std::string name;
  int64_t bytes = 0;  // of the whole file
  std::string hash;   // of the values, as runtime/io/hash.h prints it
};

struct CaptureManifest {
  PageSet layout;                  // without values
  std::vector<CaptureFile> files;  // [layer * 2 + side]
};

// "layer_00.k.safetensors"
std::string capture_file_name(int layer, Side side);
// The tensor inside it, "k" or "v".
std::string capture_tensor_name(Side side);

// The members that describe the pages, "layers" to "page_starts", as every manifest of pages has them.
nlohmann::ordered_json layout_json(const PageSet& layout);
// Throws InputError; allocates in proportion to the text only.
PageSet parse_layout(const JsonNode& root);
// A file's hash as runtime/io/hash.h prints it. Throws InputError.
std::string parse_hash(const JsonNode& node);

nlohmann::ordered_json manifest_json(const CaptureManifest& manifest, const nlohmann::ordered_json& facts,
                                     const nlohmann::ordered_json& provenance);

// Throws InputError for every way in which `text` is no manifest of this version; allocates in proportion to
// the text only. `source` names it in errors.
CaptureManifest parse_manifest(std::string_view text, const std::string& source);

}  // namespace kva
