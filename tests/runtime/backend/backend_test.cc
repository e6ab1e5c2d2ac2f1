#include "runtime/backend/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "runtime/backend/counted_vector.h"
#include "runtime/error.h"

namespace kva {
namespace {

using ::testing::HasSubstr;

TEST(Backend, CountsWhatIsHeldAndRemembersThePeak) {
  const auto backend = make_cpu_backend();
  EXPECT_EQ(backend->name(), "cpu");
  {
    Buffer a(*backend, 100, "a test");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0u);
    EXPECT_EQ(a.bytes(), 100);
    EXPECT_EQ(a.held_bytes(), 128);
    EXPECT_EQ(backend->allocated_bytes(), 128);
    Buffer b(*backend, 64, "a test");
    EXPECT_EQ(backend->allocated_bytes(), 192);
    Buffer moved = std::move(a);
    EXPECT_EQ(a.data(), nullptr);
    EXPECT_EQ(backend->allocated_bytes(), 192);
    b = Buffer();
    EXPECT_EQ(backend->allocated_bytes(), 128);
  }
  EXPECT_EQ(backend->allocated_bytes(), 0);
  EXPECT_EQ(backend->peak_bytes(), 192);
}

TEST(Backend, OutOfMemoryIsAnInputErrorThatSaysWhatWasAsked) {
  const auto backend = make_cpu_backend();
  for (const int64_t bytes : {int64_t{1} << 60, INT64_MAX}) {
    try {
      Buffer buffer(*backend, bytes, "cache pages");
      FAIL() << "got " << bytes << " bytes";
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr("out of memory"));
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(bytes) + " bytes asked for cache pages"));
    }
  }
  EXPECT_EQ(backend->allocated_bytes(), 0);
}

TEST(CountedVector, NestedVectorsCountEveryLevel) {
  const auto backend = make_cpu_backend();
  int64_t counted = 0;
  {
    using Inner = CountedVector<int>;
    CountedVector<Inner> outer(CountingAllocator<Inner>(*backend, counted));
    for (int i = 0; i < 10; ++i) {
      outer.emplace_back(CountingAllocator<int>(*backend, counted));
      outer.back().resize(static_cast<std::size_t>(i * 7));
      EXPECT_EQ(counted, backend->allocated_bytes());
    }
    EXPECT_GE(counted, static_cast<int64_t>(10 * sizeof(Inner)));
  }
  EXPECT_EQ(counted, 0);
}

}  // namespace
}  // namespace kva
