// One item of a plan by the lane code of the kernel that reads its bucket.
#pragma once

#include "kernels/attention_warp.h"
#include "tests/kernels/host_warp.h"

namespace kva {

// What the bucket's kernel has no code for is read wrongly here as well.
inline void attend_as_launched(HostWarp::Lane& lane, const AttentionJob& job, const AttentionBucket& bucket,
                               const AttentionItem& item, float* shared) {
  if (bucket.parts)
    attend_item<true, true>(lane, job, AnyKind{bucket.keys}, AnyKind{bucket.values}, item, shared);
  else if (shares_numbers(AnyKind{bucket.keys}) || shares_numbers(AnyKind{bucket.values}))
    attend_item<true>(lane, job, AnyKind{bucket.keys}, AnyKind{bucket.values}, item, shared);
  else
    attend_item<true>(lane, job, bucket.keys, bucket.values, item, shared);
}

}  // namespace kva
