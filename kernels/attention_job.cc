#include "kernels/attention_job.h"

#include <algorithm>

#include "kernels/check.h"

namespace kva {

AttentionLaunch attention_launch(int32_t items, int64_t shared_values, int64_t shared_limit) {
  const int64_t of_warp = shared_values * int64_t{sizeof(float)};
  KVA_CHECK(of_warp <= shared_limit, "a page that fits the shared memory");
  const auto warps =
      of_warp == 0 ? kMostWarps : static_cast<int32_t>(std::min<int64_t>(kMostWarps, shared_limit / of_warp));
  return {(items + warps - 1) / warps, warps, warps * of_warp};
}

}  // namespace kva
