// manifest.json of a compressed capture: to and from JSON, checked. docs/formats.md is its specification.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "compressors/compressed_capture.h"
#include "runtime/io/json.h"
#include "runtime/kv/page_set.h"

namespace kva {

// 2: quant has its codes before what it keeps beside them.
inline constexpr int64_t kCompressedVersion = 2;

// A side in the file of sides.
struct SideRecord {
  static constexpr uint32_t kNoBase = UINT32_MAX;
  uint32_t codec = 0;
  uint32_t base = kNoBase;
  uint32_t bytes = 0;
  uint16_t tokens = 0;
  uint16_t width = 0;
};
static_assert(sizeof(SideRecord) == 16, "packed by nature");

struct CompressedManifest {
  PageSet layout;  // of the capture, without values
  std::string recipe;
  KeyBasis stored_basis = KeyBasis::kRotated;  // of the encoded keys
  int zstd_level = 0;                          // 0: files as they are
  int64_t sides = 0;
  std::vector<int64_t> array_bytes;
  std::array<StoredFile, std::size(kStoredParts)> files;

  const StoredFile& file(StoredPart part) const { return files[static_cast<std::size_t>(part)]; }
  int64_t refs() const { return layout.page_count() * 2 * layout.layers * layout.kv_heads; }
};

// codecs: records as codec_record_json() makes them.
nlohmann::ordered_json compressed_manifest_json(const CompressedManifest& manifest,
                                                const nlohmann::ordered_json& codecs,
                                                const nlohmann::ordered_json& facts,
                                                const nlohmann::ordered_json& provenance);

// Everything but its "codecs", which want the arrays. Throws InputError; allocates in proportion to the text
// only.
CompressedManifest parse_compressed_manifest(const JsonNode& root);

}  // namespace kva
