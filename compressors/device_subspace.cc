#include "compressors/device_subspace.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compressors/subspace_parts.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/kv/device_array.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "fitting bases";

template <typename T>
std::vector<T> downloaded(Backend& backend, const DeviceArray<T>& from, int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  if (count > 0) backend.download(values.data(), from.data(), count * int64_t{sizeof(T)});
  return values;
}

// Fits of one shape, and their rows as matrices X on the device.
class Batch {
 public:
  Batch(Backend& backend, std::span<const DeviceFit* const> fits)
      : backend_(backend),
        device_(*backend.device()),
        count_(std::ssize(fits)),
        tokens_(fits[0]->rows.tokens()),
        width_(fits[0]->rows.joined()),
        size_(fits[0]->size),
        rows_(backend, kPurpose),
        range_(backend, kPurpose),
        projected_(backend, kPurpose),
        square_(backend, kPurpose),
        values_(backend, kPurpose),
        vectors_(backend, kPurpose),
        results_(fits.size()) {
    widen(fits);
    for (const DeviceFit* fit : fits) seeds_.push_back(fit->seed);
  }

  // As exact_subspace() finds them.
  void find_exact() {
    const bool of_columns = width_ <= tokens_;
    const int64_t size = std::min(width_, tokens_);
    square_.reserve(count_ * size * size);
    // Less than zero, so that the largest come first.
    device_.multiply_matrices({.a = rows_.data(),
                               .b = rows_.data(),
                               .out = square_.data(),
                               .rows = size,
                               .inner = of_columns ? tokens_ : width_,
                               .cols = size,
                               .transpose_a = of_columns,
                               .transpose_b = !of_columns,
                               .factor = -1.0,
                               .count = count_});
    const std::vector<double> squares = find_eigenvectors(size);
    std::vector<int64_t> ranks = ranks_of(squares, size);
    for (int64_t& rank : ranks) rank = std::min(rank, size);
    if (of_columns) return take(squares, size, ranks, square_.data(), size);
    // Right singular vectors are Xᵀ times the left ones; those of small singular values come out skewed.
    const int64_t most = *std::max_element(ranks.begin(), ranks.end());
    combine(most, size, rows_.data());
    device_.orthonormalize({.matrices = vectors_.data(), .rows = most, .length = width_, .count = count_});
    take(squares, size, ranks, vectors_.data(), most);
  }

  // As randomized_subspace() does. Those whose energy needs more directions than a round has are left to the
  // next.
  void find_randomized() {
    const int64_t most = std::min(tokens_, width_);
    constexpr int64_t kFirstGuess = 32;  // of the rank, where an energy is asked for
    for (int64_t guess = size_.rank > 0 ? size_.rank : kFirstGuess;; guess *= 2) {
      const int64_t directions = std::min(most, guess + kSubspaceOversampling);
      find_range(directions);
      project(directions);
      square_.reserve(count_ * directions * directions);
      device_.multiply_matrices({.a = projected_.data(),
                                 .b = projected_.data(),
                                 .out = square_.data(),
                                 .rows = directions,
                                 .inner = tokens_,
                                 .cols = directions,
                                 .transpose_b = true,
                                 .factor = -1.0,
                                 .count = count_});
      const std::vector<double> squares = find_eigenvectors(directions);
      std::vector<int64_t> ranks = ranks_of(squares, directions);
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        const bool more = ranks[i] > guess && directions < most;
        ranks[i] = results_[i].rank > 0 || more ? 0 : std::min(ranks[i], directions);
      }
      if (const int64_t highest = *std::max_element(ranks.begin(), ranks.end()); highest > 0) {
        combine(highest, directions, range_.data());
        take(squares, directions, ranks, vectors_.data(), highest);
      }
      if (directions == most ||
          std::all_of(results_.begin(), results_.end(), [](const Subspace& of) { return of.rank > 0; }))
        return;
    }
  }

  // rank 0: not finite.
  std::vector<Subspace> results() {
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (!finite_[i]) results_[i] = {};
    return std::move(results_);
  }

 private:
  void widen(std::span<const DeviceFit* const> fits) {
    std::vector<const std::byte*> addresses;
    addresses.reserve(fits.size() * fits[0]->rows.rows.size());
    for (const DeviceFit* fit : fits)
      addresses.insert(addresses.end(), fit->rows.rows.begin(), fit->rows.rows.end());
    DeviceArray<const std::byte*> sources(backend_, kPurpose);
    DeviceArray<double> squares(backend_, kPurpose);
    sources.upload(addresses);
    squares.reserve(count_ * tokens_);
    rows_.reserve(count_ * tokens_ * width_);
    device_.widen_rows({.kind = fits[0]->rows.kind,
                        .cells = fits[0]->rows.cells,
                        .width = fits[0]->rows.width,
                        .tokens = tokens_,
                        .count = count_,
                        .rows = sources.data(),
                        .out = rows_.data(),
                        .squares = squares.data()});
    const std::vector<double> of_rows = downloaded(backend_, squares, count_ * tokens_);
    for (auto row = of_rows.begin(); row != of_rows.end(); row += tokens_) {
      const double total = std::accumulate(row, row + tokens_, 0.0);
      finite_.push_back(std::isfinite(total));
      totals_.push_back(finite_.back() ? total : 0.0);
      if (finite_.back()) continue;
      // So that the others are found.
      const std::vector<double> zeros(static_cast<std::size_t>(tokens_ * width_));
      backend_.upload(rows_.data() + (std::ssize(totals_) - 1) * tokens_ * width_, zeros.data(),
                      tokens_ * width_ * int64_t{sizeof(double)});
    }
  }

  // Orthonormal rows [directions, width] that span the range of so many directions, after all power
  // iterations.
  void find_range(int64_t directions) {
    DeviceArray<uint64_t> seeds(backend_, kPurpose);
    seeds.upload(seeds_);
    range_.reserve(count_ * directions * width_);
    projected_.reserve(count_ * directions * tokens_);
    device_.draw_normals(
        {.seeds = seeds.data(), .numbers = directions * tokens_, .count = count_, .out = projected_.data()});
    for (int64_t i = 0; i <= kSubspacePowerIterations; ++i) {
      if (i > 0) project(directions);
      device_.multiply_matrices({.a = projected_.data(),
                                 .b = rows_.data(),
                                 .out = range_.data(),
                                 .rows = directions,
                                 .inner = tokens_,
                                 .cols = width_,
                                 .count = count_});
      device_.orthonormalize(
          {.matrices = range_.data(), .rows = directions, .length = width_, .count = count_});
    }
  }

  // range · Xᵀ.
  void project(int64_t directions) {
    device_.multiply_matrices({.a = range_.data(),
                               .b = rows_.data(),
                               .out = projected_.data(),
                               .rows = directions,
                               .inner = width_,
                               .cols = tokens_,
                               .transpose_b = true,
                               .count = count_});
  }

  // Eigenvectors of what is the negative of a matrix without negative eigenvalues; those, falling.
  std::vector<double> find_eigenvectors(int64_t size) {
    values_.reserve(count_ * size);
    device_.find_eigenvectors(
        {.matrices = square_.data(), .values = values_.data(), .size = size, .count = count_});
    std::vector<double> squares = downloaded(backend_, values_, count_ * size);
    for (double& square : squares) square = std::max(-square, 0.0);
    return squares;
  }

  std::vector<int64_t> ranks_of(std::span<const double> squares, int64_t size) const {
    std::vector<int64_t> ranks;
    for (std::size_t i = 0; i < totals_.size(); ++i)
      ranks.push_back(
          rank_of(squares.subspan(i * static_cast<std::size_t>(size), static_cast<std::size_t>(size)),
                  totals_[i], size_));
    return ranks;
  }

  // vectors [rank, width] = the first eigenvectors · matrices [size, width].
  void combine(int64_t rank, int64_t size, const double* matrices) {
    vectors_.reserve(count_ * rank * width_);
    device_.multiply_matrices({.a = square_.data(),
                               .b = matrices,
                               .out = vectors_.data(),
                               .rows = rank,
                               .inner = size,
                               .cols = width_,
                               .count = count_,
                               .a_stride = size * size});
  }

  // Brings the first vectors of each matrix [of_each, width] here; ranks: how many, 0 for none.
  void take(std::span<const double> squares, int64_t size, std::span<const int64_t> ranks,
            const double* vectors, int64_t of_each) {
    std::vector<std::vector<double>> found(ranks.size());
    std::vector<DevicePiece> pieces;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      if (ranks[i] == 0) continue;
      found[i].resize(static_cast<std::size_t>(ranks[i] * width_));
      pieces.push_back({found[i].data(), vectors + static_cast<int64_t>(i) * of_each * width_,
                        ranks[i] * width_ * int64_t{sizeof(double)}});
    }
    device_.fetch(pieces, *device_.mark());
    for (std::size_t i = 0; i < ranks.size(); ++i)
      if (ranks[i] > 0)
        results_[i] =
            subspace_of(squares.subspan(i * static_cast<std::size_t>(size), static_cast<std::size_t>(size)),
                        totals_[i], MatView<const double>(found[i].data(), ranks[i], width_));
  }

  Backend& backend_;
  DeviceOps& device_;
  int64_t count_;
  int64_t tokens_;
  int64_t width_;
  SubspaceSize size_;
  std::vector<uint64_t> seeds_;
  std::vector<double> totals_;     // squared lengths
  std::vector<char> finite_;       // others are 0 here
  DeviceArray<double> rows_;       // X [count, tokens, width]
  DeviceArray<double> range_;      // [count, directions, width]
  DeviceArray<double> projected_;  // [count, directions, tokens]
  DeviceArray<double> square_;     // [count, size, size]
  DeviceArray<double> values_;     // [count, size]
  DeviceArray<double> vectors_;    // [count, rank, width]
  std::vector<Subspace> results_;
};

bool alike(const DeviceFit& a, const DeviceFit& b) {
  return a.rows.kind == b.rows.kind && a.rows.cells == b.rows.cells && a.rows.width == b.rows.width &&
         a.rows.rows.size() == b.rows.rows.size() && a.size.rank == b.size.rank &&
         a.size.energy == b.size.energy;
}

}  // namespace

std::vector<Subspace> subspaces_on_device(Backend& backend, std::span<const DeviceFit> fits,
                                          bool randomized) {
  std::vector<Subspace> results(fits.size());
  std::vector<char> taken(fits.size(), 0);
  for (std::size_t first = 0; first < fits.size(); ++first) {
    if (taken[first]) continue;
    const JoinedRows& rows = fits[first].rows;
    KVA_CHECK(rows.tokens() > 0 && rows.joined() > 0, "rows to fit a subspace to");
    const auto together =
        static_cast<std::size_t>(std::max<int64_t>(1, kMostFitTogether / (rows.tokens() * rows.joined())));
    std::vector<const DeviceFit*> batch;
    std::vector<std::size_t> members;
    for (std::size_t i = first; i < fits.size() && batch.size() < together; ++i) {
      if (taken[i] || !alike(fits[i], fits[first])) continue;
      taken[i] = 1;
      batch.push_back(&fits[i]);
      members.push_back(i);
    }
    Batch of(backend, batch);
    if (randomized)
      of.find_randomized();
    else
      of.find_exact();
    std::vector<Subspace> found = of.results();
    for (std::size_t i = 0; i < members.size(); ++i) results[members[i]] = std::move(found[i]);
  }
  return results;
}

}  // namespace kva
