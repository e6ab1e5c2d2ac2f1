#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "compressors/codec_record.h"
#include "compressors/compressed_capture.h"
#include "compressors/compressed_manifest.h"
#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/new_folder.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

constexpr const char* kManifest = "manifest.json";

bool is_ours(const std::string& name) {
  for (const StoredPart part : kStoredParts)
    for (const int level : {0, 1})
      if (name == stored_file_name(part, level)) return true;
  return name == "report.json" || name == "report.md" || name == "report.html";
}

template <typename T>
std::span<const std::byte> as_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace

struct StoredPages::Contents {
  explicit Contents(const Replay& of) : replay(of) {
    const PageSet& pages = replay.pages();
    refs.reserve(static_cast<std::size_t>(pages.page_count() * 2 * pages.layers * pages.kv_heads));
    // In this order neighbours in the files are alike, which zstd makes use of.
    for (int layer = 0; layer < pages.layers; ++layer) {
      throw_if_interrupted();
      for (const Side side : {Side::kKey, Side::kValue})
        for (int head = 0; head < pages.kv_heads; ++head)
          for (int64_t page = 0; page < pages.page_count(); ++page)
            refs.push_back(add_side(replay.cache().page(replay.address(page, {layer, head, side})).side));
    }
  }

  uint32_t add_side(SideId id) {
    if (const auto known = of_side.find(id); known != of_side.end()) return known->second;
    const StoredSide side = replay.cache().side(id);
    SideRecord record;
    if (side.base != kNoSide) record.base = add_side(side.base);
    record.codec = static_cast<uint32_t>(add_codec(side.codec));
    record.bytes = static_cast<uint32_t>(side.payload.size());
    record.tokens = static_cast<uint16_t>(side.tokens);
    record.width = static_cast<uint16_t>(side.width);
    const auto index = static_cast<uint32_t>(ids.size());
    ids.push_back(id);
    records.push_back(record);
    payload_bytes += record.bytes;
    of_side.emplace(id, index);
    return index;
  }

  int64_t add_codec(const std::shared_ptr<const SideCodec>& codec) {
    if (const auto known = of_codec.find(codec.get()); known != of_codec.end()) return known->second;
    const CodecSpec spec = codec->spec();
    if (spec.kind.empty())
      throw InputError(
          fmt::format("{}: expected codecs that files can hold, found this one; compress with another "
                      "method",
                      codec->name()));
    std::vector<int64_t> inner, used;
    for (const auto& inside : spec.inner) inner.push_back(add_codec(inside));
    for (const auto& array : spec.arrays) {
      const auto [entry, is_new] = of_array.emplace(array.data(), static_cast<int64_t>(arrays.size()));
      if (is_new) arrays.push_back(array);
      used.push_back(entry->second);
    }
    const auto index = static_cast<int64_t>(codecs.size());
    codecs.push_back(codec_record_json(*codec, inner, used));
    of_codec.emplace(codec.get(), index);
    return index;
  }

  void write(StoredPart part, PackedFileWriter& file) const {
    switch (part) {
      case StoredPart::kArrays:
        for (const auto& array : arrays) file.write(array);
        return;
      case StoredPart::kSides: return file.write(as_bytes(records));
      case StoredPart::kPayload:
        for (const SideId id : ids) {
          throw_if_interrupted();
          file.write(replay.cache().side(id).payload);
        }
        return;
      case StoredPart::kRefs: return file.write(as_bytes(refs));
    }
  }

  const Replay& replay;
  std::vector<uint32_t> refs;
  std::vector<SideId> ids;  // of the sides, in their order
  std::vector<SideRecord> records;
  std::vector<std::span<const std::byte>> arrays;
  ordered_json codecs = ordered_json::array();
  int64_t payload_bytes = 0;
  std::unordered_map<SideId, uint32_t> of_side;
  std::unordered_map<const SideCodec*, int64_t> of_codec;
  std::unordered_map<const std::byte*, int64_t> of_array;
};

StoredPages::StoredPages(const Replay& replay) : contents_(std::make_unique<Contents>(replay)) {}
StoredPages::~StoredPages() = default;
StoredPages::StoredPages(StoredPages&&) noexcept = default;

int64_t StoredPages::sides() const { return static_cast<int64_t>(contents_->ids.size()); }
int64_t StoredPages::refs() const { return static_cast<int64_t>(contents_->refs.size()); }

std::vector<CodecShare> StoredPages::by_codec() const {
  std::map<std::string, CodecShare> shares;
  for (const SideRecord& record : contents_->records) {
    const std::string name = contents_->codecs[record.codec]["name"];
    CodecShare& share = shares[name];
    share.name = name;
    ++share.sides;
    share.bytes += record.bytes;
  }
  std::vector<CodecShare> list;
  list.reserve(shares.size());
  for (auto& [name, share] : shares) list.push_back(std::move(share));
  return list;
}

int64_t StoredPages::raw_bytes(StoredPart part) const {
  switch (part) {
    case StoredPart::kArrays: {
      int64_t bytes = 0;
      for (const auto& array : contents_->arrays) bytes += static_cast<int64_t>(array.size());
      return bytes;
    }
    case StoredPart::kSides: return sides() * static_cast<int64_t>(sizeof(SideRecord));
    case StoredPart::kPayload: return contents_->payload_bytes;
    case StoredPart::kRefs: return refs() * static_cast<int64_t>(sizeof(uint32_t));
  }
  return 0;
}

struct CompressedWriter::Impl {
  explicit Impl(const std::string& name) : folder(name, "compressed capture", is_ours) {}
  NewFolder folder;
};

CompressedWriter::CompressedWriter(const std::string& folder) : impl_(std::make_unique<Impl>(folder)) {}
CompressedWriter::~CompressedWriter() = default;

int64_t CompressedWriter::free_bytes() const { return impl_->folder.free_bytes(); }
std::string CompressedWriter::path() const { return impl_->folder.path(); }
void CompressedWriter::finish() { impl_->folder.install(); }

std::vector<StoredFile> CompressedWriter::write(const StoredPages& pages, int zstd_level,
                                                const ordered_json& facts, const ordered_json& provenance) {
  const StoredPages::Contents& contents = pages.contents();
  CompressedManifest manifest;
  manifest.layout = contents.replay.pages();
  manifest.recipe = contents.replay.recipe().text();
  manifest.stored_basis = contents.replay.stored_basis();
  manifest.zstd_level = zstd_level;
  manifest.sides = pages.sides();
  for (const auto& array : contents.arrays)
    manifest.array_bytes.push_back(static_cast<int64_t>(array.size()));
  for (const StoredPart part : kStoredParts) {
    StoredFile& file = manifest.files[static_cast<std::size_t>(part)];
    file.name = stored_file_name(part, zstd_level);
    PackedFileWriter writer(impl_->folder.path(file.name), zstd_level);
    contents.write(part, writer);
    file.facts = writer.finish();
  }
  const std::string text =
      compressed_manifest_json(manifest, contents.codecs, facts, provenance).dump(1) + "\n";
  write_text_file(impl_->folder.path(kManifest), text);
  std::vector<StoredFile> files(manifest.files.begin(), manifest.files.end());
  const auto bytes = static_cast<int64_t>(text.size());
  files.push_back({kManifest, {bytes, bytes, ""}});
  return files;
}

}  // namespace kva
