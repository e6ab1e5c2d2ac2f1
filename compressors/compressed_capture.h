// A capture whose pages went through a recipe, as a folder: encoded page sides, which of them each page
// refers to, and the codecs that read them. docs/formats.md specifies it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "compressors/replay.h"
#include "runtime/io/packed_file.h"
#include "runtime/kv/page_set.h"

namespace kva {

// The binary files, in the order in which they are read.
enum class StoredPart { kArrays, kSides, kPayload, kRefs };
inline constexpr StoredPart kStoredParts[] = {StoredPart::kArrays, StoredPart::kSides, StoredPart::kPayload,
                                              StoredPart::kRefs};

struct StoredFile {
  std::string name;
  PackedFileFacts facts;
};

// "payload.bin", or "payload.bin.zst".
std::string stored_file_name(StoredPart part, int zstd_level);

struct CodecShare {
  std::string name;
  int64_t sides = 0;
  int64_t bytes = 0;  // payload and scales
};

// What of a replayed capture a folder holds. Refers to the replay.
class StoredPages {
 public:
  // Throws InputError where a codec cannot be written, by its name.
  explicit StoredPages(const Replay& replay);
  ~StoredPages();
  StoredPages(StoredPages&&) noexcept;

  int64_t sides() const;
  int64_t refs() const;
  int64_t raw_bytes(StoredPart part) const;
  std::vector<CodecShare> by_codec() const;  // by name

  struct Contents;
  const Contents& contents() const { return *contents_; }

 private:
  std::unique_ptr<Contents> contents_;
};

// Writes to a temporary folder and renames it in finish(); destroyed before that, it leaves nothing.
class CompressedWriter {
 public:
  // Throws InputError where the folder cannot be written or holds anything but an earlier compressed capture.
  explicit CompressedWriter(const std::string& folder);
  ~CompressedWriter();

  int64_t free_bytes() const;
  // Writes the files and then manifest.json, the last of those returned. Objects are kept in the manifest as
  // they are. Throws InputError, Interrupted.
  std::vector<StoredFile> write(const StoredPages& pages, int zstd_level, const nlohmann::ordered_json& facts,
                                const nlohmann::ordered_json& provenance);
  // Where the folder is until finish(): a report may join it.
  std::string path() const;
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Such a folder, read back into memory; still compressed.
class CompressedCapture {
 public:
  // Checks everything before it is believed: manifest, sizes, checksums, codecs, refs, and each payload.
  // Throws InputError for every defect, naming file and field.
  static CompressedCapture load(const std::string& folder);
  // The same from anywhere: `source` names the manifest in errors; refused where it wants over most_bytes.
  using Open = std::function<std::unique_ptr<ByteSource>(StoredPart part, const StoredFile& file)>;
  static CompressedCapture read(std::string_view manifest, const std::string& source, const Open& open,
                                int64_t most_bytes);
  ~CompressedCapture();
  CompressedCapture(CompressedCapture&&) noexcept;

  const PageSet& layout() const;  // without values
  const std::string& recipe() const;
  const nlohmann::ordered_json& facts() const;
  // Payload and scales as the pages hold them here.
  int64_t payload_bytes() const;
  int64_t sides() const;
  // rows [page_tokens, head_dim], in the capture's key basis. Thread-safe.
  void read_page(int64_t page, int layer, int kv_head, Side side, MatView<float> rows) const;

 private:
  struct Impl;
  explicit CompressedCapture(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
