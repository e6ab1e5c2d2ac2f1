// A tile of the search for pages that could be freed, on a device (kernels/cover_lanes.h).
#pragma once

#include <cstdint>

#include "kernels/similarity_job.h"

namespace kva {

// Pages [row, row + rows) against pages [column, column + columns), which either are decided, column +
// columns
// <= row, or the same pages: then they are decided in their order. All addresses are the device's.
struct CoverJob {
  const float* dots = nullptr;  // [rows, columns]
  int32_t row = 0, rows = 0;
  int32_t column = 0, columns = 0;
  PageNorms norms;
  ExactPages exact;
  float thresholds[kMaxThresholds] = {};
  int32_t threshold_count = 0;
  uint32_t* near = nullptr;  // scratch, [rows, columns]
  uint32_t* near_count = nullptr;
  uint16_t* over = nullptr;  // scratch, [rows, columns], where the pages are the same
  // Of each page: bit t that it is freed by cosine at threshold t, bit kMaxThresholds + t by L2.
  uint32_t* freed = nullptr;

  KVA_HOST_DEVICE bool same_pages() const { return row == column; }
};

inline constexpr int32_t kMostCoverRows = 4096;  // of one job

}  // namespace kva
