#include "compressors/compressed_capture.h"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "compressors/codec_record.h"
#include "compressors/compressed_manifest.h"
#include "kernels/check.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/rebase.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBytesBesideSide = 64;  // what the store keeps of a side beside its payload, about

// The bytes of `count` records from a file that holds just them.
template <typename T>
std::vector<T> read_records(ByteSource& file, int64_t count) {
  std::vector<T> records(static_cast<std::size_t>(count));
  file.read({reinterpret_cast<std::byte*>(records.data()), records.size() * sizeof(T)});
  return records;
}

void expect_end(ByteSource& file, const std::string& name) {
  if (!file.at_end())
    throw InputError(
        fmt::format("{}: expected its end, found more bytes; the files of this folder disagree", name));
}

}  // namespace

struct CompressedCapture::Impl {
  CompressedManifest manifest;
  std::shared_ptr<Backend> backend = make_cpu_backend();
  std::shared_ptr<SideMemory> side_memory = std::make_shared<SideMemory>(backend);
  std::vector<ReadCodec> codecs;
  std::unique_ptr<PageStore> store;
  std::vector<SideId> sides;
  std::vector<uint32_t> refs;  // [layers, 2, kv_heads, pages]
  nlohmann::ordered_json facts;

  using Arrays = std::vector<std::shared_ptr<const SideArray>>;
  Arrays read_arrays(ByteSource& file) const {
    Arrays arrays;
    for (const int64_t bytes : manifest.array_bytes) {
      SideArray array(side_memory, bytes, "side data of a compressed capture");
      file.read({array.data(), static_cast<std::size_t>(bytes)});
      arrays.push_back(std::make_shared<const SideArray>(std::move(array)));
    }
    return arrays;
  }

  void read_codecs(const JsonNode& list, const Arrays& arrays) {
    for (int64_t i = 0; i < list.size(); ++i) codecs.push_back(read_codec(list.at(i), codecs, arrays));
  }

  // What is wrong with a side's record; empty: nothing.
  std::string defect(const SideRecord& record) const {
    if (record.codec >= codecs.size())
      return fmt::format("codec below {}, found {}", codecs.size(), record.codec);
    if (record.tokens == 0 || record.tokens > manifest.layout.page_tokens)
      return fmt::format("1 to {} tokens, found {}", manifest.layout.page_tokens, record.tokens);
    int64_t base_width = 0;
    if (record.base != SideRecord::kNoBase) {
      if (record.base >= sides.size()) return fmt::format("a base before it, found {}", record.base);
      const SideId base = sides[record.base];
      if (store->base(base) != kNoSide || store->tokens(base) != record.tokens)
        return fmt::format("a base of as many tokens that has none itself, found {}", record.base);
      base_width = store->width(base);
    }
    const SideCodec& codec = *codecs[record.codec].codec;
    if (record.width == 0 || !codec.takes(record.width, base_width))
      return fmt::format("a width that its codec takes, found {}", record.width);
    if (codec.bytes(record.tokens, record.width) != record.bytes)
      return fmt::format("{} bytes, found {}", codec.bytes(record.tokens, record.width), record.bytes);
    return "";
  }

  void read_sides(ByteSource& records, ByteSource& payload) {
    store = std::make_unique<PageStore>(*backend, *backend, manifest.layout.head_dim,
                                        manifest.layout.page_tokens);
    std::vector<std::byte> bytes;
    for (int64_t i = 0; i < manifest.sides; ++i) {
      if (i % 1024 == 0) throw_if_interrupted();
      SideRecord record;
      records.read({reinterpret_cast<std::byte*>(&record), sizeof(record)});
      if (const std::string wrong = defect(record); !wrong.empty())
        throw InputError(fmt::format("{}: side {}: expected {}; the folder is damaged",
                                     manifest.file(StoredPart::kSides).name, i, wrong));
      bytes.resize(record.bytes);
      payload.read(bytes);
      const SideId id = store->add(codecs[record.codec].codec, Lane::kKeys, record.tokens, record.width,
                                   bytes, record.base == SideRecord::kNoBase ? kNoSide : sides[record.base]);
      sides.push_back(id);
      if (!codecs[record.codec].codec->accepts(store->data(id), record.tokens, record.width))
        throw InputError(
            fmt::format("{}: side {}: expected a payload of {}, found other bytes; the folder is "
                        "damaged",
                        manifest.file(StoredPart::kPayload).name, i, codecs[record.codec].codec->name()));
    }
  }

  void read_refs(ByteSource& file) {
    refs = read_records<uint32_t>(file, manifest.refs());
    for (std::size_t i = 0; i < refs.size(); ++i) {
      const bool page = refs[i] < sides.size() &&
                        store->tokens(sides[refs[i]]) == manifest.layout.page_tokens &&
                        store->width(sides[refs[i]]) == manifest.layout.head_dim;
      if (!page)
        throw InputError(
            fmt::format("{}: ref {}: expected a side of {} tokens of {} numbers, found side {}; the "
                        "folder is damaged",
                        manifest.file(StoredPart::kRefs).name, i, manifest.layout.page_tokens,
                        manifest.layout.head_dim, refs[i]));
    }
  }

  SideId side_of(int64_t page, int layer, int kv_head, Side side) const {
    const PageSet& layout = manifest.layout;
    const int64_t row = (int64_t{layer} * 2 + (side == Side::kValue ? 1 : 0)) * layout.kv_heads + kv_head;
    return sides[refs[static_cast<std::size_t>(row * layout.page_count() + page)]];
  }
};

CompressedCapture::CompressedCapture(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CompressedCapture::~CompressedCapture() = default;
CompressedCapture::CompressedCapture(CompressedCapture&&) noexcept = default;

CompressedCapture CompressedCapture::read(std::string_view text, const std::string& source, const Open& open,
                                          int64_t most_bytes) {
  const JsonNode root = JsonNode::parse_text(text, source, {.unique_keys = true});
  auto impl = std::make_unique<Impl>();
  impl->manifest = parse_compressed_manifest(root);
  const CompressedManifest& manifest = impl->manifest;
  if (manifest.layout.key_basis != manifest.stored_basis && !manifest.layout.rope)
    root.at("stored_basis").fail("the capture's key_basis where there is no rope");
  int64_t wanted = manifest.sides * kBytesBesideSide;
  for (const StoredFile& file : manifest.files) wanted += file.facts.raw_bytes;
  if (wanted > most_bytes)
    throw InputError(
        fmt::format("{}: expected at most {} bytes of pages, found {}; use a machine with more memory",
                    source, most_bytes, wanted));
  const auto file_of = [&](StoredPart part) { return open(part, manifest.file(part)); };
  const auto finish = [&](StoredPart part, ByteSource& file) { expect_end(file, manifest.file(part).name); };
  {
    const auto arrays = file_of(StoredPart::kArrays);
    impl->read_codecs(root.at("codecs"), impl->read_arrays(*arrays));
    finish(StoredPart::kArrays, *arrays);
  }
  {
    const auto records = file_of(StoredPart::kSides);
    const auto payload = file_of(StoredPart::kPayload);
    impl->read_sides(*records, *payload);
    finish(StoredPart::kSides, *records);
    finish(StoredPart::kPayload, *payload);
  }
  const auto refs = file_of(StoredPart::kRefs);
  impl->read_refs(*refs);
  finish(StoredPart::kRefs, *refs);
  impl->facts = parse_ordered_json(text, source)["facts"];
  return CompressedCapture(std::move(impl));
}

CompressedCapture CompressedCapture::load(const std::string& folder) {
  std::error_code ignored;
  const fs::path manifest = fs::path(folder) / "manifest.json";
  if (!fs::is_directory(folder, ignored) || !fs::exists(manifest, ignored))
    throw InputError(fmt::format("{}: expected a folder that `kvanalyze compress` wrote", folder));
  const std::string text = read_text_file(manifest.string(), JsonLimits().max_bytes);
  const Open open = [&](StoredPart, const StoredFile& file) -> std::unique_ptr<ByteSource> {
    return std::make_unique<PackedFileReader>((fs::path(folder) / file.name).string(), file.facts,
                                              file.name.ends_with(".zst"));
  };
  return read(text, manifest.string(), open, host_memory().available_bytes);
}

const PageSet& CompressedCapture::layout() const { return impl_->manifest.layout; }
const std::string& CompressedCapture::recipe() const { return impl_->manifest.recipe; }
const nlohmann::ordered_json& CompressedCapture::facts() const { return impl_->facts; }
int64_t CompressedCapture::sides() const { return impl_->manifest.sides; }

int64_t CompressedCapture::payload_bytes() const {
  ByteLedger ledger;
  impl_->store->add_to(ledger);
  return ledger.payload + ledger.scales;
}

void CompressedCapture::read_page(int64_t page, int layer, int kv_head, Side side,
                                  MatView<float> rows) const {
  const PageSet& pages = layout();
  KVA_CHECK(rows.rows == pages.page_tokens && rows.cols == pages.head_dim && rows.stride == rows.cols,
            "rows for the page's tokens");
  impl_->store->read(impl_->side_of(page, layer, kv_head, side), rows);
  if (side == Side::kKey && pages.rope)
    rebase_keys(*pages.rope, impl_->manifest.stored_basis, pages.key_basis,
                pages.pages[static_cast<std::size_t>(page)].start, rows.rows, 1, rows.data);
}

}  // namespace kva
