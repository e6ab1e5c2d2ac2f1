#include "compressors/compressed_manifest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/kv/capture_manifest.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFormat = "kvanalyze.compressed";
constexpr int64_t kMostBytes = int64_t{1} << 56;  // of a file: sums of a few fit an int64
constexpr const char* kPartNames[] = {"arrays", "sides", "payload", "refs"};

std::string part_name(StoredPart part) { return kPartNames[static_cast<std::size_t>(part)]; }

void parse_files(const JsonNode& root, CompressedManifest& manifest) {
  const JsonNode files = root.at("files");
  if (files.size() != static_cast<int64_t>(manifest.files.size()))
    files.fail(fmt::format("{} files", manifest.files.size()));
  for (const StoredPart part : kStoredParts) {
    const JsonNode node = files.at(static_cast<int64_t>(part));
    StoredFile& file = manifest.files[static_cast<std::size_t>(part)];
    file.name = stored_file_name(part, manifest.zstd_level);
    if (node.at("name").as_string() != file.name) node.at("name").fail(fmt::format("\"{}\"", file.name));
    file.facts.bytes = node.at("bytes").as_int(0, kMostBytes);
    file.facts.raw_bytes = node.at("raw_bytes").as_int(0, kMostBytes);
    file.facts.hash = parse_hash(node.at("hash"));
  }
  const auto expect = [&](StoredPart part, double bytes) {
    const int64_t found = manifest.file(part).facts.raw_bytes;
    if (static_cast<double>(found) != bytes)
      files.at(static_cast<int64_t>(part))
          .at("raw_bytes")
          .fail(fmt::format("{:.0f} bytes of {}, as the rest implies", bytes, part_name(part)));
  };
  double arrays = 0;
  for (const int64_t bytes : manifest.array_bytes) arrays += static_cast<double>(bytes);
  const PageSet& layout = manifest.layout;
  expect(StoredPart::kArrays, arrays);
  expect(StoredPart::kSides, static_cast<double>(manifest.sides) * sizeof(SideRecord));
  expect(StoredPart::kRefs, 8.0 * static_cast<double>(layout.page_count()) * layout.layers * layout.kv_heads);
}

}  // namespace

std::string stored_file_name(StoredPart part, int zstd_level) {
  return part_name(part) + (zstd_level > 0 ? ".bin.zst" : ".bin");
}

ordered_json compressed_manifest_json(const CompressedManifest& manifest, const ordered_json& codecs,
                                      const ordered_json& facts, const ordered_json& provenance) {
  ordered_json json = {{"format", kFormat},
                       {"version", kCompressedVersion},
                       {"recipe", manifest.recipe},
                       {"stored_basis", key_basis_name(manifest.stored_basis)},
                       {"zstd_level", manifest.zstd_level},
                       {"sides", manifest.sides}};
  json.update(layout_json(manifest.layout));
  json["codecs"] = codecs;
  json["arrays"] = manifest.array_bytes;
  json["files"] = ordered_json::array();
  for (const StoredFile& file : manifest.files)
    json["files"].push_back({{"name", file.name},
                             {"bytes", file.facts.bytes},
                             {"raw_bytes", file.facts.raw_bytes},
                             {"hash", file.facts.hash}});
  json["facts"] = facts;
  json["provenance"] = provenance;
  return json;
}

CompressedManifest parse_compressed_manifest(const JsonNode& root) {
  const JsonNode format = root.at("format");
  if (format.as_string() != kFormat)
    format.fail(fmt::format("\"{}\", as `kvanalyze compress` writes it", kFormat));
  const int64_t version = root.at("version").as_int(1, INT32_MAX);
  if (version > kCompressedVersion)
    throw InputError(
        fmt::format("{}: version: this compressed capture has version {}, this program reads up to {}; "
                    "use a newer kvanalyze",
                    root.source(), version, kCompressedVersion));
  if (version < kCompressedVersion)
    throw InputError(fmt::format(
        "{}: version: this compressed capture has version {}, this program reads {}; compress the "
        "capture again",
        root.source(), version, kCompressedVersion));
  CompressedManifest manifest;
  manifest.layout = parse_layout(root);
  manifest.recipe = root.at("recipe").as_string();
  const auto basis = parse_key_basis(root.at("stored_basis").as_string());
  if (!basis) root.at("stored_basis").fail("\"rotated\", \"plain\" or \"page-relative\"");
  manifest.stored_basis = *basis;
  manifest.zstd_level = static_cast<int>(root.at("zstd_level").as_int(0, kMostZstdLevel));
  manifest.sides = root.at("sides").as_int(0, UINT32_MAX - 1);
  const JsonNode arrays = root.at("arrays");
  for (int64_t i = 0; i < arrays.size(); ++i)
    manifest.array_bytes.push_back(arrays.at(i).as_int(1, kMostBytes));
  parse_files(root, manifest);
  for (const char* object : {"facts", "provenance"})
    if (!root.at(object).is_object()) root.at(object).fail("an object");
  return manifest;
}

}  // namespace kva
