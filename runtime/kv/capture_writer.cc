#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/kv/capture.h"
#include "runtime/kv/capture_manifest.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

bool is_ours(const std::string& name) {
  return name == kManifestName ||
         (name.rfind("layer_", 0) == 0 && fs::path(name).extension() == ".safetensors");
}

// Throws unless `folder` is absent, empty or an earlier capture with nothing else in it.
void check_replaceable(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status))
    throw InputError(
        fmt::format("{}: expected a folder to write the capture to, found a file", folder.string()));
  bool empty = true, manifest = false;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!is_ours(name))
      throw InputError(
          fmt::format("{}: expected a new folder or an earlier capture, found one that holds {}; "
                      "name another folder",
                      folder.string(), name));
    empty = false;
    manifest |= name == kManifestName;
  }
  if (error)
    throw InputError(fmt::format("{}: cannot read this folder: {}", folder.string(), error.message()));
  if (!empty && !manifest)
    throw InputError(
        fmt::format("{}: expected a new folder or an earlier capture, found tensor files without a "
                    "manifest; name another folder",
                    folder.string()));
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
  fs::path folder;                // where the capture will be
  fs::path temporary;             // where it is written; empty once moved
  std::vector<AtomicFile> files;  // [layer * 2 + side]
  std::vector<RunningHash> hashes;

  ~Files() {
    files.clear();
    std::error_code ignored;
    if (!temporary.empty()) fs::remove_all(temporary, ignored);
  }

  // Puts the finished temporary folder in its place.
  void install() {
    check_replaceable(folder);
    const fs::path old = folder.string() + fmt::format(".old.{}", ::getpid());
    std::error_code error;
    const bool replaces = fs::exists(folder, error);
    if (replaces) fs::rename(folder, old, error);
    if (!error) fs::rename(temporary, folder, error);
    if (error) {
      std::error_code ignored;
      if (replaces && !fs::exists(folder, ignored)) fs::rename(old, folder, ignored);
      throw InputError(fmt::format("{}: cannot write: {}", folder.string(), error.message()));
    }
    temporary.clear();
    if (replaces) fs::remove_all(old, error);
  }
};

CaptureWriter::CaptureWriter(const std::string& folder) : files_(std::make_unique<Files>()) {
  if (folder.empty()) throw InputError("capture folder: expected a name, found an empty one");
  fs::path path = fs::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  check_replaceable(path);
  make_directories(path.parent_path().string());
  const fs::path temporary = path.string() + fmt::format(".tmp.{}", ::getpid());
  std::error_code error;
  if (!fs::create_directory(temporary, error))
    throw InputError(fmt::format("{}: cannot make this folder: {}", temporary.string(),
                                 error ? error.message() : "it is there already"));
  files_->folder = path;
  files_->temporary = temporary;
}

CaptureWriter::~CaptureWriter() = default;

int64_t CaptureWriter::free_bytes() const {
  std::error_code error;
  const fs::space_info space = fs::space(fs::absolute(files_->folder).parent_path(), error);
  return error ? INT64_MAX : static_cast<int64_t>(space.available);
}

void CaptureWriter::open() {
  for (int layer = 0; layer < layout().layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      AtomicFile& file =
          files_->files.emplace_back((files_->temporary / capture_file_name(layer, side)).string());
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
  write_text_file((files_->temporary / kManifestName).string(),
                  manifest_json(manifest, facts, provenance).dump(1) + "\n");
  files_->install();
}

}  // namespace kva
