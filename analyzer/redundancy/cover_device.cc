#include <algorithm>

#include "analyzer/redundancy/cover.h"
#include "analyzer/redundancy/device_pages.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// Covers of one page matrix, head after head.
class DeviceCover {
 public:
  DeviceCover(const PageMatrix& pages, std::span<const float> thresholds, Backend& backend,
              int64_t tile_pages)
      : count_(pages.shape().pages),
        tile_pages_(std::min(tile_pages, count_)),
        thresholds_(thresholds),
        backend_(backend),
        pages_(pages, backend, false),
        dots_(backend, "products of pages"),
        near_(backend, "pages that nearly equal each other"),
        over_(backend, "pages over a threshold"),
        freed_(backend, "pages that are freed") {
    KVA_CHECK(tile_pages_ <= kMostCoverRows && thresholds.size() <= kMaxThresholds,
              "a tile that can be covered");
    const int64_t pairs = tile_pages_ * tile_pages_;
    dots_.reserve(pairs);
    near_.reserve(pairs + 1);
    over_.reserve(pairs);
  }

  Cover of_head(int head) {
    freed_.upload(std::vector<uint32_t>(static_cast<std::size_t>(count_)));
    for (int64_t row = 0; row < count_; row += tile_pages_) {
      throw_if_interrupted();
      // The tile on the diagonal last: those before hold decided pages alone.
      for (int64_t column = 0; column <= row; column += tile_pages_)
        take(head,
             {row, std::min(tile_pages_, count_ - row), column, std::min(tile_pages_, count_ - column)});
    }
    return read();
  }

 private:
  void take(int head, const DeviceTile& tile) {
    pages_.multiply(head, tile, dots_.data(), false);
    CoverJob job;
    job.dots = dots_.data();
    job.row = static_cast<int32_t>(tile.row);
    job.rows = static_cast<int32_t>(tile.rows);
    job.column = static_cast<int32_t>(tile.column);
    job.columns = static_cast<int32_t>(tile.columns);
    job.norms = pages_.norms(head);
    job.exact = pages_.exact(head);
    std::copy(thresholds_.begin(), thresholds_.end(), job.thresholds);
    job.threshold_count = static_cast<int32_t>(thresholds_.size());
    job.near = near_.data() + 1;
    job.near_count = near_.data();
    job.over = over_.data();
    job.freed = freed_.data();
    backend_.device()->cover(job);
  }

  Cover read() const {
    std::vector<uint32_t> freed(static_cast<std::size_t>(count_));
    backend_.download(freed.data(), freed_.data(), count_ * int64_t{sizeof(uint32_t)});
    const std::vector<char> none(freed.size());
    Cover cover{{thresholds_.size(), none}, {thresholds_.size(), none}};
    for (std::size_t t = 0; t < thresholds_.size(); ++t)
      for (std::size_t p = 0; p < freed.size(); ++p) {
        cover.cosine[t][p] = static_cast<char>(freed[p] >> t & 1);
        cover.l2[t][p] = static_cast<char>(freed[p] >> (kMaxThresholds + t) & 1);
      }
    return cover;
  }

  const int64_t count_;
  const int64_t tile_pages_;
  const std::span<const float> thresholds_;
  Backend& backend_;
  DevicePages pages_;
  DeviceArray<float> dots_;
  DeviceArray<uint32_t> near_;
  DeviceArray<uint16_t> over_;
  DeviceArray<uint32_t> freed_;
};

}  // namespace

std::vector<Cover> cover_heads_on_device(const PageMatrix& pages, std::span<const float> thresholds,
                                         Backend& backend, int64_t tile_pages) {
  DeviceCover device(pages, thresholds, backend, tile_pages);
  std::vector<Cover> covers;
  for (int64_t h = 0; h < pages.shape().heads; ++h) covers.push_back(device.of_head(static_cast<int>(h)));
  return covers;
}

}  // namespace kva
