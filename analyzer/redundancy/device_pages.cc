#include "analyzer/redundancy/device_pages.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/device_ops.h"

namespace kva {
namespace {

// What products ask of an address, and more than any of them uses.
constexpr int64_t kAlignedValues = 128;
constexpr int64_t kNormArrays = 5;  // f32, of a scope

// Copies all heads through one head's worth of the host's memory.
template <typename T, typename Head>
void upload_by_head(Backend& backend, const PageShape& shape, int64_t head_stride, const Head& head,
                    DeviceArray<T>& to) {
  to.reserve(shape.heads * head_stride);
  std::vector<T> one(static_cast<std::size_t>(shape.pages * shape.head_values()));
  for (int64_t h = 0; h < shape.heads; ++h) {
    const MatView<const T> rows = head(static_cast<int>(h));
    for (int64_t p = 0; p < shape.pages; ++p)
      std::copy_n(rows.row(p), shape.head_values(), one.begin() + p * shape.head_values());
    backend.upload(to.data() + h * head_stride, one.data(), std::ssize(one) * int64_t{sizeof(T)});
  }
}

}  // namespace

DevicePages::DevicePages(const PageMatrix& pages, Backend& backend, bool bits)
    : pages_(pages),
      backend_(backend),
      values_(backend, "pages to compare"),
      norms_(backend, "norms of pages"),
      means_(backend, "means of channels"),
      rounded_(backend, "rounded pages"),
      exact_(backend, "exact norms of pages"),
      signs_(backend, "signs of pages"),
      top_(backend, "index sets of pages") {
  KVA_CHECK(backend.device() != nullptr, "memory of a device");
  const PageShape& shape = pages.shape();
  head_stride_ = (shape.pages * shape.head_values() + kAlignedValues - 1) / kAlignedValues * kAlignedValues;
  bits_stride_ = pages.signs(0).stride();
  upload_values();
  upload_norms();
  if (bits) upload_bits();
}

void DevicePages::upload_values() {
  const PageShape& shape = pages_.shape();
  upload_by_head(
      backend_, shape, head_stride_, [&](int head) { return pages_.centred(head); }, values_);
  if (pages_.rounds_products())
    upload_by_head(
        backend_, shape, head_stride_, [&](int head) { return pages_.rounded(head); }, rounded_);
  means_.upload(pages_.means());
}

void DevicePages::upload_norms() {
  const int64_t pages = pages_.shape().pages;
  const int64_t scopes = pages_.shape().heads + 1;
  norms_.reserve(scopes * kNormArrays * pages);
  exact_.reserve(scopes * 2 * pages);
  for (int64_t s = 0; s < scopes; ++s) {
    const ScopeNorms& of = pages_.norms(s == pages_.shape().heads ? kJoinedHeads : static_cast<int>(s));
    float* to = norms_.data() + s * kNormArrays * pages;
    for (const auto* array :
         {&of.norm, &of.inverse, &of.centred_squared, &of.centred_inverse, &of.mean_dot}) {
      backend_.upload(to, array->data(), pages * int64_t{sizeof(float)});
      to += pages;
    }
    double* exact = exact_.data() + s * 2 * pages;
    backend_.upload(exact, of.exact_norm.data(), pages * int64_t{sizeof(double)});
    backend_.upload(exact + pages, of.exact_centred.data(), pages * int64_t{sizeof(double)});
  }
}

// Words of all heads' signs after each other, so that joined heads are one long row of them; index sets of
// heads, then of the joined ones.
void DevicePages::upload_bits() {
  const int heads = static_cast<int>(pages_.shape().heads);
  const int64_t of_head = pages_.signs(0).words() * bits_stride_;
  const int64_t of_joined = pages_.top(kJoinedHeads).words() * bits_stride_;
  constexpr int64_t kWord = sizeof(uint64_t);
  signs_.reserve(heads * of_head);
  top_.reserve(heads * of_head + of_joined);
  for (int h = 0; h < heads; ++h) {
    backend_.upload(signs_.data() + h * of_head, pages_.signs(h).data(), of_head * kWord);
    backend_.upload(top_.data() + h * of_head, pages_.top(h).data(), of_head * kWord);
  }
  backend_.upload(top_.data() + heads * of_head, pages_.top(kJoinedHeads).data(), of_joined * kWord);
}

void DevicePages::multiply(int head, const DeviceTile& tile, float* out, bool adds) {
  const int64_t numbers = pages_.shape().head_values();
  const bool rounded = pages_.rounds_products();
  const DType type = rounded ? DType::kBF16 : DType::kF32;
  const auto rows_from = [&](int64_t page) -> void* {
    const int64_t at = head * head_stride_ + page * numbers;
    if (rounded) return rounded_.data() + at;
    return values_.data() + at;
  };
  backend_.device()->multiply({.x = {rows_from(tile.row), type, tile.rows, numbers, numbers},
                               .weights = {rows_from(tile.column), type, tile.columns, numbers},
                               .out = {out, DType::kF32, tile.rows, tile.columns, tile.columns},
                               .adds = adds});
}

void DevicePages::count_differing(int head, const DeviceTile& tile, uint32_t* out) {
  const int64_t words = pages_.signs(0).words();
  const bool joined = head == kJoinedHeads;
  BitCountJob job;
  job.words = signs_.data() + (joined ? 0 : head * words * bits_stride_);
  job.count = static_cast<int32_t>(joined ? pages_.shape().heads * words : words);
  count(job, tile, out);
}

void DevicePages::count_common(int head, const DeviceTile& tile, uint32_t* out) {
  BitCountJob job;
  job.words = top_.data() + index(head) * pages_.top(0).words() * bits_stride_;
  job.count = static_cast<int32_t>(pages_.top(head).words());
  job.common = true;
  count(job, tile, out);
}

void DevicePages::count(const BitCountJob& job, const DeviceTile& tile, uint32_t* out) {
  BitCountJob whole = job;
  whole.pages_stride = bits_stride_;
  whole.row = static_cast<int32_t>(tile.row);
  whole.rows = static_cast<int32_t>(tile.rows);
  whole.column = static_cast<int32_t>(tile.column);
  whole.columns = static_cast<int32_t>(tile.columns);
  whole.counts = out;
  whole.stride = tile.columns;
  backend_.device()->count_bits(whole);
}

PageNorms DevicePages::norms(int head) const {
  const int64_t pages = pages_.shape().pages;
  const float* at = norms_.data() + index(head) * kNormArrays * pages;
  const ScopeNorms& of = pages_.norms(head);
  return {at, at + pages, at + 2 * pages, at + 3 * pages, at + 4 * pages, of.mean_squared, of.near};
}

ExactPages DevicePages::exact(int head) const {
  const PageShape& shape = pages_.shape();
  const bool joined = head == kJoinedHeads;
  const double* norm = exact_.data() + index(head) * 2 * shape.pages;
  return {.values = values_.data() + (joined ? 0 : head * head_stride_),
          .head_stride = head_stride_,
          .heads = static_cast<int32_t>(joined ? shape.heads : 1),
          .numbers = static_cast<int32_t>(shape.head_values()),
          .channels = static_cast<int32_t>(shape.head_dim),
          .means = means_.data() + (joined ? 0 : head * shape.head_dim),
          .unit = pages_.unit(),
          .norm = norm,
          .centred = norm + shape.pages};
}

}  // namespace kva
