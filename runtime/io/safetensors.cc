#include "runtime/io/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>

#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

namespace kva {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own cap
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

struct Entry {
  TensorView view;    // data points into the map
  std::string dtype;  // as the file spells it
  int64_t begin = 0;  // offset behind the header
  std::unique_ptr<std::byte[]> aligned;
};

using Entries = std::map<std::string, Entry, std::less<>>;

// Names come from the file: kept on one line and short.
std::string shown(std::string_view name) {
  std::string text(name.substr(0, 100));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  if (name.size() > 100) text += "...";
  return text;
}

[[noreturn]] void fail(const std::string& file, std::string_view tensor, const std::string& what) {
  throw InputError(fmt::format("{}: tensor {}: {}", file, shown(tensor), what));
}

std::optional<DType> supported_dtype(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

// Bytes of one element; 0 for a type that this program has not heard of.
int64_t element_bytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, int64_t> kSizes[] = {
      {"F32", 4},  {"F16", 2}, {"BF16", 2},    {"F64", 8},    {"I64", 8}, {"U64", 8},
      {"I32", 4},  {"U32", 4}, {"I16", 2},     {"U16", 2},    {"I8", 1},  {"U8", 1},
      {"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, bytes] : kSizes)
    if (name == dtype) return bytes;
  return 0;
}

std::vector<int64_t> read_shape(const JsonNode& node) {
  std::vector<int64_t> shape;
  const int64_t rank = node.size();
  if (rank > 16) node.fail("a shape of at most 16 dimensions");
  for (int64_t i = 0; i < rank; ++i) shape.push_back(node.at(i).as_int(0, INT64_MAX));
  return shape;
}

void check_range(const Entry& entry, int64_t data_bytes) {
  const TensorView& view = entry.view;
  if (view.bytes > data_bytes - entry.begin)
    fail(view.file, view.name,
         fmt::format("expected its bytes within the {} bytes of data, found bytes {} to {} (truncated file?)",
                     data_bytes, entry.begin, entry.begin + view.bytes));
  const int64_t element = element_bytes(entry.dtype);
  if (element == 0) return;
  int64_t expected = element;
  for (const int64_t dim : view.shape)
    if (__builtin_mul_overflow(expected, dim, &expected))
      fail(view.file, view.name,
           fmt::format("the shape [{}] is too large to be true", fmt::join(view.shape, ", ")));
  if (expected != view.bytes)
    fail(view.file, view.name,
         fmt::format("expected {} bytes for shape [{}] of {}, found {}", expected,
                     fmt::join(view.shape, ", "), entry.dtype, view.bytes));
}

Entry read_entry(const std::string& name, const JsonNode& node, const std::string& source,
                 int64_t data_bytes) {
  Entry entry;
  entry.view.name = name;
  entry.view.file = source;
  entry.dtype = node.at("dtype").as_string();
  if (const auto dtype = supported_dtype(entry.dtype)) entry.view.dtype = *dtype;
  entry.view.shape = read_shape(node.at("shape"));
  const JsonNode offsets = node.at("data_offsets");
  if (offsets.size() != 2) offsets.fail("a begin and an end");
  entry.begin = offsets.at(0).as_int(0, INT64_MAX);
  const int64_t end = offsets.at(1).as_int(0, INT64_MAX);
  if (end < entry.begin)
    fail(source, name, fmt::format("expected data_offsets in order, found {} to {}", entry.begin, end));
  entry.view.bytes = end - entry.begin;
  if (entry.begin > data_bytes)
    fail(source, name,
         fmt::format("expected its bytes within the {} bytes of data, found a start at {} (truncated file?)",
                     data_bytes, entry.begin));
  check_range(entry, data_bytes);
  return entry;
}

// The data must be covered without overlap or hole: anything else is a damaged or a doctored file.
void check_cover(const Entries& entries, const std::string& source, int64_t data_bytes) {
  std::vector<const Entry*> order;
  for (const auto& [name, entry] : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->begin, a->view.bytes) < std::pair(b->begin, b->view.bytes);
  });
  int64_t position = 0;
  for (const Entry* entry : order) {
    if (entry->begin != position)
      fail(source, entry->view.name,
           fmt::format("expected its bytes to start at {}, where the tensor before it ends, found {} ({})",
                       position, entry->begin, entry->begin < position ? "they overlap" : "a hole"));
    position += entry->view.bytes;
  }
  if (position != data_bytes)
    throw InputError(fmt::format("{}: expected {} bytes of data, as its tensors take, found {}", source,
                                 position, data_bytes));
}

Entries parse(std::span<const std::byte> bytes, const std::string& source) {
  if (bytes.size() < 8)
    throw InputError(
        fmt::format("{}: expected a safetensors header, found a file of {} bytes", source, bytes.size()));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i)
    header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(bytes[static_cast<std::size_t>(i)]);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8)
    throw InputError(fmt::format(
        "{}: expected a header within the {} bytes of the file (at most {}), found a header length of "
        "{} (truncated, or not safetensors)",
        source, bytes.size(), kMaxHeaderBytes, header_bytes));
  const auto data = bytes.subspan(8 + header_bytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const JsonNode header =
      JsonNode::parse_text(text, source, {.max_bytes = kMaxHeaderBytes, .max_depth = 8, .unique_keys = true});
  Entries entries;
  const auto data_bytes = static_cast<int64_t>(data.size());
  for (const std::string& name : header.keys()) {
    if (name == "__metadata__") continue;
    Entry entry = read_entry(name, header.at(name), source, data_bytes);
    entry.view.data = data.data() + entry.begin;
    entries.emplace(name, std::move(entry));
  }
  check_cover(entries, source, data_bytes);
  return entries;
}

// The shard's path, where it stays inside the folder. Links are followed: the Hugging Face cache keeps its
// files behind them.
std::string shard_path(const std::string& folder, const JsonNode& node) {
  const std::filesystem::path shard = node.as_string();
  const bool escapes = shard.empty() || shard.is_absolute() ||
                       std::any_of(shard.begin(), shard.end(), [](const auto& part) { return part == ".."; });
  if (escapes || node.as_string().find('\0') != std::string::npos)
    node.fail("a file inside the model's folder");
  return (std::filesystem::path(folder) / shard).string();
}

}  // namespace

struct TensorArchive::State {
  std::string source;  // what to name when a tensor is missing
  std::vector<MappedFile> maps;
  std::mutex mutex;  // guards the aligned copies
  Entries entries;

  // A view whose data is aligned to its type.
  const TensorView& aligned(Entry& entry) {
    TensorView& view = entry.view;
    const std::lock_guard lock(mutex);
    const auto misaligned =
        reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(dtype_bytes(view.dtype));
    if (misaligned != 0) {
      entry.aligned.reset(new std::byte[static_cast<std::size_t>(view.bytes)]);
      std::memcpy(entry.aligned.get(), view.data, static_cast<std::size_t>(view.bytes));
      view.data = entry.aligned.get();
    }
    return view;
  }
};

TensorArchive TensorArchive::from_memory(std::span<const std::byte> bytes, const std::string& source) {
  auto state = std::make_shared<State>();
  state->source = source;
  state->entries = parse(bytes, source);
  return TensorArchive(std::move(state));
}

TensorArchive TensorArchive::open_file(const std::string& path) {
  MappedFile map(path);
  TensorArchive archive = from_memory(map.bytes(), path);
  archive.state_->maps.push_back(std::move(map));
  return archive;
}

TensorArchive TensorArchive::open_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  const std::string single = (fs::path(folder) / kSingleFile).string();
  const std::string index_path = (fs::path(folder) / kIndexFile).string();
  std::error_code error;
  if (fs::exists(single, error)) return open_file(single);
  if (!fs::exists(index_path, error))
    throw InputError(fmt::format("{}: expected {} or {}, found {}", folder, kSingleFile, kIndexFile,
                                 fs::exists(fs::path(folder) / "pytorch_model.bin", error)
                                     ? "pytorch_model.bin (scripts/fetch_model.py converts it)"
                                     : "neither"));
  const JsonNode weight_map = JsonNode::parse_file(index_path, {.unique_keys = true}).at("weight_map");
  auto state = std::make_shared<State>();
  state->source = index_path;
  std::map<std::string, Entries> shards;
  for (const std::string& name : weight_map.keys()) {
    const JsonNode file = weight_map.at(name);
    const std::string path = shard_path(folder, file);
    auto shard = shards.find(path);
    if (shard == shards.end()) {
      if (!fs::exists(path, error))
        throw InputError(fmt::format("{}: expected the shard {}, found no such file", index_path, path));
      state->maps.emplace_back(path);
      shard = shards.emplace(path, parse(state->maps.back().bytes(), path)).first;
    }
    auto node = shard->second.extract(name);
    if (node.empty()) fail(path, name, fmt::format("{} places it here, found no such tensor", kIndexFile));
    state->entries.insert(std::move(node));
  }
  return TensorArchive(std::move(state));
}

const TensorView* TensorArchive::find(std::string_view name) const {
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) return nullptr;
  Entry& entry = found->second;
  if (!supported_dtype(entry.dtype))
    fail(entry.view.file, name, fmt::format("expected F32, F16 or BF16, found {}", shown(entry.dtype)));
  return &state_->aligned(entry);
}

void TensorArchive::forget(const TensorView& tensor) const {
  for (const MappedFile& map : state_->maps)
    map.forget({tensor.data, static_cast<std::size_t>(tensor.bytes)});
}

const TensorView& TensorArchive::at(std::string_view name, std::span<const int64_t> expected_shape) const {
  const TensorView* view = find(name);
  if (!view) fail(state_->source, name, "this tensor is required and missing");
  if (!std::ranges::equal(view->shape, expected_shape))
    fail(view->file, name,
         fmt::format("expected shape [{}], found [{}]", fmt::join(expected_shape, ", "),
                     fmt::join(view->shape, ", ")));
  return *view;
}

std::vector<std::string> TensorArchive::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_->entries) names.push_back(name);
  return names;
}

int64_t TensorArchive::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : state_->entries) total += entry.view.bytes;
  return total;
}

std::string TensorArchive::hash() const {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hasher(XXH3_createState(),
                                                                               XXH3_freeState);
  XXH3_128bits_reset(hasher.get());
  const std::lock_guard lock(state_->mutex);
  for (const auto& [name, entry] : state_->entries) {
    const std::string head = fmt::format("{}\n{}\n{}\n", name, entry.dtype, fmt::join(entry.view.shape, ","));
    XXH3_128bits_update(hasher.get(), head.data(), head.size());
    constexpr int64_t kChunkBytes = 64 << 20;
    for (int64_t done = 0; done < entry.view.bytes; done += kChunkBytes) {
      throw_if_interrupted();
      XXH3_128bits_update(hasher.get(), entry.view.data + done,
                          static_cast<std::size_t>(std::min(kChunkBytes, entry.view.bytes - done)));
    }
  }
  const XXH128_hash_t digest = XXH3_128bits_digest(hasher.get());
  return fmt::format("xxh3:{:016x}{:016x}", digest.high64, digest.low64);
}

namespace {

// The first element whose exponent is all ones, or -1. Blocks are reduced without a branch.
template <class Bits>
int64_t first_non_finite(const std::byte* data, int64_t count, Bits exponent) {
  const Bits* values = reinterpret_cast<const Bits*>(data);
  constexpr int64_t kBlock = 4096;
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t end = std::min(count, start + kBlock);
    Bits any = 0;
    for (int64_t i = start; i < end; ++i) any |= static_cast<Bits>((values[i] & exponent) == exponent);
    if (!any) continue;
    for (int64_t i = start; i < end; ++i)
      if ((values[i] & exponent) == exponent) return i;
  }
  return -1;
}

}  // namespace

void check_finite(const TensorView& tensor) {
  int64_t index = -1;
  switch (tensor.dtype) {
    case DType::kF32: index = first_non_finite<uint32_t>(tensor.data, tensor.count(), 0x7f800000u); break;
    case DType::kF16: index = first_non_finite<uint16_t>(tensor.data, tensor.count(), 0x7c00u); break;
    case DType::kBF16: index = first_non_finite<uint16_t>(tensor.data, tensor.count(), 0x7f80u); break;
  }
  if (index >= 0)
    fail(tensor.file, tensor.name,
         fmt::format("expected finite weights, found NaN or infinity at element {}", index));
}

}  // namespace kva
