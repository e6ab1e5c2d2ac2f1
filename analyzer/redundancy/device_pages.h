// The pages of one layer and side on a device, and tiles of their products and bit counts.
#pragma once

#include <cstdint>
#include <vector>

#include "analyzer/redundancy/page_matrix.h"
#include "kernels/similarity_job.h"
#include "runtime/kv/device_array.h"

namespace kva {

// Of a tile's side at most, but for tests.
inline constexpr int64_t kDeviceTilePages = 2048;

// Pages [row, row + rows) against [column, column + columns).
struct DeviceTile {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t column = 0;
  int64_t columns = 0;
};

// A copy of a PageMatrix, by head: a head's pages lie one after the other. Pages and backend, of which
// device() is not null, outlive it. Throws InputError where the device has not the memory.
class DevicePages {
 public:
  // bits: signs and index sets too.
  DevicePages(const PageMatrix& pages, Backend& backend, bool bits);

  // out [tile.rows, tile.columns] = products of one head's pages, or with `adds` those on top.
  void multiply(int head, const DeviceTile& tile, float* out, bool adds);
  // The same with bits that differ in the signs, resp. are set in both index sets; of kJoinedHeads too.
  void count_differing(int head, const DeviceTile& tile, uint32_t* out);
  void count_common(int head, const DeviceTile& tile, uint32_t* out);

  PageNorms norms(int head) const;
  ExactPages exact(int head) const;

 private:
  int64_t index(int head) const { return head == kJoinedHeads ? pages_.shape().heads : head; }
  void upload_values();
  void upload_norms();
  void upload_bits();
  void count(const BitCountJob& job, const DeviceTile& tile, uint32_t* out);

  const PageMatrix& pages_;
  Backend& backend_;
  int64_t head_stride_ = 0;  // in numbers
  int64_t bits_stride_ = 0;
  DeviceArray<float> values_, norms_, means_;
  DeviceArray<uint16_t> rounded_;
  DeviceArray<double> exact_;
  DeviceArray<uint64_t> signs_, top_;
};

}  // namespace kva
