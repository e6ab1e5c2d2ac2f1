// Runs a whole test program on one SIMD target: with KVA_SIMD_TARGET=AVX2, say, in its environment.
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cstdlib>
#include <string_view>

namespace kva {
namespace {

class ForcedSimdTarget : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* name = std::getenv("KVA_SIMD_TARGET");
    if (!name) return;
    for (const int64_t target : hwy::SupportedAndGeneratedTargets())
      if (std::string_view(hwy::TargetName(target)) == name) {
        hwy::SetSupportedTargetsForTest(target);
        hwy::GetChosenTarget().Update(hwy::SupportedTargets());
        return;
      }
    GTEST_SKIP() << "this machine, or this build, has no " << name;
  }
};

const ::testing::Environment* const forced =
    ::testing::AddGlobalTestEnvironment(new ForcedSimdTarget);  // NOLINT: owned by GoogleTest

}  // namespace
}  // namespace kva
