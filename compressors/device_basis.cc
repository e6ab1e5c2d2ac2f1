#include "compressors/device_basis.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/kv/device_array.h"
#include "runtime/kv/side_memory.h"

namespace kva {
namespace {

constexpr std::string_view kPurpose = "measuring pages";
constexpr int64_t kMostScratch = int64_t{16} << 20;

// The dense rows of a side: their type; nothing of other sides.
std::optional<SideKind> dense_kind(const StoredSide& side) {
  if (side.base != kNoSide || side.tokens == 0) return std::nullopt;
  const auto format = side.codec->device_format(side.tokens, side.width);
  if (!holds_rows(format)) return std::nullopt;
  return format->kind;
}

// Rows of one shape, which one launch takes.
struct Shape {
  ProjectionJob job;
  std::vector<std::size_t> members;
};

ProjectionJob shape_of(const BasedRows& of) {
  return {.source_kind = of.rows.kind,
          .cells = of.rows.cells,
          .width = of.rows.width,
          .rank = static_cast<int32_t>(of.basis->rank()),
          .tokens = static_cast<int32_t>(of.rows.tokens())};
}

std::vector<Shape> launches_of(std::span<const BasedRows> rows) {
  std::vector<Shape> launches;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ProjectionJob job = shape_of(rows[i]);
    KVA_CHECK(job.cells == rows[i].basis->cells() && job.width == rows[i].basis->width(),
              "rows of the basis's cells");
    auto found = std::find_if(launches.begin(), launches.end(), [&](const Shape& of) {
      return of.job.source_kind == job.source_kind && of.job.cells == job.cells &&
             of.job.width == job.width && of.job.rank == job.rank && of.job.tokens == job.tokens;
    });
    if (found == launches.end()) found = launches.insert(found, {job, {}});
    found->members.push_back(i);
  }
  return launches;
}

// Runs launches; their memory.
class Measuring {
 public:
  Measuring(Backend& backend, std::span<const BasedRows> rows)
      : backend_(backend),
        all_(rows),
        rows_(backend, kPurpose),
        sides_(backend, kPurpose),
        scratch_(backend, kPurpose),
        lengths_(backend, kPurpose),
        refused_(backend, kPurpose) {
    const int32_t none = 0;
    refused_.upload({&none, 1});
  }

  // Whether the residuals are there: of the launch's rows, at their places.
  bool run(const Shape& launch, std::vector<double>& residuals) {
    const int64_t each = projection_numbers(launch.job);
    const auto count = std::ssize(launch.members);
    const int64_t at_once = std::clamp<int64_t>(kMostScratch / (each * int64_t{sizeof(float)}), 1, count);
    scratch_.reserve(at_once * each);
    lengths_.reserve(at_once * 2);
    for (int64_t at = 0; at < count; at += at_once) {
      const std::span<const std::size_t> members(launch.members.data() + at,
                                                 static_cast<std::size_t>(std::min(at_once, count - at)));
      if (!run(launch.job, members, each, residuals)) return false;
    }
    return true;
  }

 private:
  bool run(ProjectionJob job, std::span<const std::size_t> members, int64_t each,
           std::vector<double>& residuals) {
    std::vector<const std::byte*> addresses;
    for (const std::size_t i : members)
      addresses.insert(addresses.end(), all_[i].rows.rows.begin(), all_[i].rows.rows.end());
    rows_.upload(addresses);
    std::vector<ProjectionSide> sides;
    const int64_t rows_each = int64_t{job.tokens} * job.cells;
    for (std::size_t i = 0; i < members.size(); ++i) {
      float* scratch = scratch_.data() + static_cast<int64_t>(i) * each;
      sides.push_back(
          {.rows = rows_.data() + static_cast<int64_t>(i) * rows_each,
           .basis = reinterpret_cast<const uint16_t*>(all_[members[i]].basis->array().on_device()),
           .coefficients = scratch,
           .residual = scratch + int64_t{job.tokens} * job.rank});
    }
    sides_.upload(sides);
    job.sides = sides_.data();
    job.count = static_cast<int32_t>(sides.size());
    job.lengths = lengths_.data();
    job.refused = refused_.data();
    backend_.device()->project(job);
    std::vector<double> lengths(members.size() * 2);
    backend_.download(lengths.data(), lengths_.data(), std::ssize(lengths) * int64_t{sizeof(double)});
    int32_t refused = 0;
    backend_.download(&refused, refused_.data(), sizeof refused);
    if (refused != 0) return false;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const double whole = lengths[2 * i + 1];
      residuals[members[i]] = whole > 0.0 ? std::sqrt(lengths[2 * i] / whole) : 0.0;
    }
    return true;
  }

  Backend& backend_;
  std::span<const BasedRows> all_;
  DeviceArray<const std::byte*> rows_;
  DeviceArray<ProjectionSide> sides_;
  DeviceArray<float> scratch_;
  DeviceArray<double> lengths_;
  DeviceArray<int32_t> refused_;
};

}  // namespace

std::optional<JoinedRows> rows_on_device(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                                         int64_t first, int64_t pages) {
  JoinedRows found{.cells = static_cast<int32_t>(group.cells.size()),
                   .width = static_cast<int32_t>(cache.options().head_dim)};
  for (int64_t page = first; page < first + pages; ++page) {
    const std::vector<PageAddress> at = group_page(cache, sequence, group, page);
    if (at.empty()) continue;
    std::vector<StoredSide> sides;
    for (const PageAddress& cell : at) {
      sides.push_back(cache.side(cache.page(cell).side));
      const auto kind = dense_kind(sides.back());
      if (!kind || (!found.rows.empty() && *kind != found.kind) || (sides.size() > 1 && *kind != found.kind))
        return std::nullopt;
      found.kind = *kind;
    }
    const int64_t row_bytes = int64_t{found.width} * side_bits(found.kind) / 8;
    for (int64_t t = 0; t < sides.front().tokens; ++t)
      for (const StoredSide& side : sides) found.rows.push_back(side.payload.data() + t * row_bytes);
  }
  if (found.rows.empty()) return std::nullopt;
  return found;
}

std::optional<std::vector<double>> residuals_on_device(Backend& backend, std::span<const BasedRows> rows) {
  std::vector<double> residuals(rows.size());
  if (rows.empty()) return residuals;
  Measuring measuring(backend, rows);
  for (const Shape& launch : launches_of(rows))
    if (!measuring.run(launch, residuals)) return std::nullopt;
  return residuals;
}

}  // namespace kva
