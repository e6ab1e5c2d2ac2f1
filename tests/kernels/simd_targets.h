// Runs a check once for every SIMD target that was built and that this machine has.
#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

namespace kva {

template <typename Check>
void for_each_simd_target(const Check& check) {
  const int64_t before = hwy::SupportedTargets();
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    check();
  }
  hwy::SetSupportedTargetsForTest(before);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace kva
