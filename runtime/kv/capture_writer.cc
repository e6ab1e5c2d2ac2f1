#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/new_folder.h"
#include "runtime/kv/capture.h"
#include "runtime/kv/capture_manifest.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

bool is_ours(const std::string& name) {
  return name == kManifestName ||
         (name.rfind("layer_", 0) == 0 && fs::path(name).extension() == ".safetensors");
}

std::string header_text(const PageSet& layout, Side side) {
  const char* type = layout.dtype == DType::kF32 ? "F32" : layout.dtype == DType::kF16 ? "F16" : "BF16";
  const int64_t bytes = layout.page_count() * layout.page_values() * dtype_bytes(layout.dtype);
  std::string json = fmt::format(R"({{"{}":{{"dtype":"{}","shape":[{},{},{},{}],"data_offsets":[0,{}]}}}})",
                                 capture_tensor_name(side), type, layout.page_count(), layout.kv_heads,
                                 layout.page_tokens, layout.head_dim, bytes);
  constexpr std::size_t kLength = kCaptureHeaderBytes - sizeof(uint64_t);
  KVA_CHECK(json.size() <= kLength, "the header has its fixed size");
  json.resize(kLength, ' ');
  std::string header(sizeof(uint64_t), '\0');
  for (std::size_t i = 0; i < sizeof(uint64_t); ++i)
    header[i] = static_cast<char>((uint64_t{kLength} >> (8 * i)) & 0xff);
  return header + json;
}

}  // namespace

struct CaptureWriter::Files {
  explicit Files(const std::string& name) : folder(name, "capture", is_ours) {}

  NewFolder folder;
  std::vector<AtomicFile> files;  // [layer * 2 + side]
  std::vector<RunningHash> hashes;
};

CaptureWriter::CaptureWriter(const std::string& folder) : files_(std::make_unique<Files>(folder)) {}

CaptureWriter::~CaptureWriter() = default;

int64_t CaptureWriter::free_bytes() const { return files_->folder.free_bytes(); }

void CaptureWriter::open() {
  for (int layer = 0; layer < layout().layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      AtomicFile& file = files_->files.emplace_back(files_->folder.path(capture_file_name(layer, side)));
      file.write(header_text(layout(), side));
      files_->hashes.emplace_back();
    }
  }
}

void CaptureWriter::take(int layer, Side side, std::span<const std::byte> values) {
  const std::size_t index = side_index(layer, side);
  files_->files[index].write(values.data(), values.size());
  files_->hashes[index].add(values);
}

void CaptureWriter::finish(const nlohmann::ordered_json& facts, const nlohmann::ordered_json& provenance) {
  KVA_CHECK(!files_->files.empty(), "a capture begins before it ends");
  CaptureManifest manifest;
  manifest.layout = layout();
  for (int layer = 0; layer < layout().layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      const std::size_t index = side_index(layer, side);
      AtomicFile& file = files_->files[index];
      const std::string header = header_text(layout(), side);
      file.write_at(0, header.data(), header.size());
      manifest.files.push_back({capture_file_name(layer, side), file.size(), files_->hashes[index].text()});
      file.commit();
    }
  }
  write_text_file(files_->folder.path(kManifestName),
                  manifest_json(manifest, facts, provenance).dump(1) + "\n");
  files_->files.clear();
  files_->folder.install();
}

}  // namespace kva
