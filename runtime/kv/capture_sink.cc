#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/kv/capture.h"

namespace kva {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // handed to a sink at a time, about

// Bytes that grow to exactly their size; realloc() moves large blocks by remapping, not by copying.
class GrowingBytes {
 public:
  void append(std::span<const std::byte> more) {
    if (more.empty()) return;
    void* grown = std::realloc(data_.get(), size_ + more.size());
    if (!grown)
      throw InputError(
          fmt::format("out of memory: {} bytes of pages asked for; use `kvanalyze capture`, "
                      "fewer or shorter prompts",
                      size_ + more.size()));
    (void)data_.release();
    data_.reset(static_cast<std::byte*>(grown));
    std::memcpy(data_.get() + size_, more.data(), more.size());
    size_ += more.size();
  }
  const std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace

PageSink::PageSink() = default;
PageSink::~PageSink() = default;

void PageSink::begin(const KvCacheOptions& options, DType dtype) {
  KVA_CHECK(layout_.layers == 0, "a sink begins once");
  layout_.layers = options.layers;
  layout_.kv_heads = options.kv_heads;
  layout_.head_dim = options.head_dim;
  layout_.page_tokens = options.page_tokens;
  layout_.dtype = dtype;
  layout_.key_basis = options.key_basis;
  layout_.rope = options.rope;
  open();
}

void PageSink::add_prompt(const CapturedPrompt& prompt, const KvCache& cache, SequenceId sequence) {
  add_prompt(prompt, *cache.snapshot(sequence));
}

void PageSink::add_prompt(const CapturedPrompt& prompt, const PageSnapshot& pages) {
  KVA_CHECK(prompt.pages == pages.pages(), "all full pages of the sequence are taken");
  std::vector<int64_t> starts;
  for (int64_t page = 0; page < prompt.pages; ++page) starts.push_back(page * layout_.page_tokens);
  add_prompt(prompt, starts, [&](int layer, Side side, int64_t first, int64_t count, float* rows) {
    pages.read(layer, side, first, count, rows);
  });
}

void PageSink::add_prompt(const CapturedPrompt& prompt, std::span<const int64_t> starts,
                          const PageReader& read) {
  KVA_CHECK(prompt.pages == static_cast<int64_t>(starts.size()), "a position for each page");
  const bool new_set = layout_.prompts.empty() || layout_.prompts.back().set != prompt.set;
  KVA_CHECK(!new_set || std::none_of(layout_.prompts.begin(), layout_.prompts.end(),
                                     [&](const CapturedPrompt& p) { return p.set == prompt.set; }),
            "prompts of a set are adjacent");
  const int64_t page_values = layout_.page_values();
  const int64_t page_bytes = page_values * dtype_bytes(layout_.dtype);
  const int64_t piece_pages =
      std::min(std::max<int64_t>(1, kPieceBytes / page_bytes), std::max<int64_t>(prompt.pages, 1));
  std::vector<float> rows(static_cast<std::size_t>(piece_pages * page_values));
  std::vector<std::byte> piece(static_cast<std::size_t>(piece_pages * page_bytes));
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      throw_if_interrupted();
      for (int64_t first = 0; first < prompt.pages; first += piece_pages) {
        const int64_t count = std::min(piece_pages, prompt.pages - first);
        read(layer, side, first, count, rows.data());
        from_f32(rows.data(), layout_.dtype, piece.data(), count * page_values);
        take(layer, side, {piece.data(), static_cast<std::size_t>(count * page_bytes)});
      }
    }
  }
  const int index = static_cast<int>(layout_.prompts.size());
  layout_.prompts.push_back(prompt);
  for (const int64_t start : starts) layout_.pages.push_back({index, start});
}

struct MemoryCapture::Store {
  std::vector<GrowingBytes> sides;  // [layer * 2 + side]
};

MemoryCapture::MemoryCapture() : store_(std::make_shared<Store>()) {}
MemoryCapture::~MemoryCapture() = default;

int64_t MemoryCapture::free_bytes() const { return host_memory().available_bytes; }

void MemoryCapture::open() { store_->sides.resize(static_cast<std::size_t>(layout().layers) * 2); }

void MemoryCapture::take(int layer, Side side, std::span<const std::byte> values) {
  store_->sides[side_index(layer, side)].append(values);
}

PageSet MemoryCapture::pages() const {
  PageSet set = layout();
  for (const GrowingBytes& side : store_->sides) set.values.push_back(side.data());
  set.owner = store_;
  return set;
}

}  // namespace kva
