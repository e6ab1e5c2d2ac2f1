#include "runtime/backend/page_arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/backend/backend.h"

namespace kva {
namespace {

constexpr int64_t kBlock = PageArena::kBlockBytes;
constexpr int64_t kLeast = PageArena::kLeastBytes;
constexpr int64_t kPage = 4096;

std::uintptr_t address(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

void fill(void* memory, int64_t bytes, int value) {
  std::memset(memory, value, static_cast<std::size_t>(bytes));
}

// How many of the pages that lie wholly in the memory are resident.
int64_t resident_pages(const void* memory, int64_t bytes) {
  const std::uintptr_t begin = (address(memory) + kPage - 1) / kPage * kPage;
  const std::uintptr_t end = (address(memory) + static_cast<std::uintptr_t>(bytes)) / kPage * kPage;
  std::vector<unsigned char> pages((end - begin) / kPage);
  EXPECT_EQ(::mincore(reinterpret_cast<void*>(begin), end - begin, pages.data()), 0);
  int64_t resident = 0;
  for (const unsigned char page : pages) resident += page & 1;
  return resident;
}

// KiB of huge pages in the mapping that holds the address.
int64_t huge_kib(const void* memory) {
  std::FILE* file = std::fopen("/proc/self/smaps", "r");
  if (file == nullptr) return -1;
  char line[512];
  bool within = false;
  long long huge = -1;
  while (huge < 0 && std::fgets(line, sizeof line, file) != nullptr) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2)
      within = begin <= address(memory) && address(memory) < end;
    else if (within)
      std::sscanf(line, "AnonHugePages: %lld kB", &huge);
  }
  std::fclose(file);
  return huge;
}

TEST(PageArena, HandsOutTheLowestAddressThatFitsAndJoinsWhatWasFreed) {
  PageArena arena;
  auto* a = static_cast<std::byte*>(arena.allocate(kLeast));
  auto* b = static_cast<std::byte*>(arena.allocate(2 * kLeast + 64));
  auto* c = static_cast<std::byte*>(arena.allocate(kLeast));
  EXPECT_EQ(address(a) % kBlock, 0u);
  EXPECT_EQ(b, a + kLeast);
  EXPECT_EQ(c, b + 2 * kLeast + 64);
  EXPECT_TRUE(arena.free(b, 2 * kLeast + 64));
  EXPECT_EQ(arena.allocate(3 * kLeast), c + kLeast) << "the gap is too small";
  EXPECT_EQ(arena.allocate(kLeast), b);
  EXPECT_TRUE(arena.free(a, kLeast));
  EXPECT_TRUE(arena.free(b, kLeast));
  EXPECT_EQ(arena.allocate(3 * kLeast + 64), a) << "three gaps are one";
}

TEST(PageArena, KeepsContentsApartOverManyAllocationsAndFrees) {
  struct Allocation {
    std::byte* memory;
    int64_t bytes;
    int value;
  };
  PageArena arena(4 * kBlock);  // small regions, so that there are several
  std::mt19937 random(1);
  std::vector<Allocation> live;
  std::map<std::uintptr_t, std::uintptr_t> shadow;
  const auto intact = [](const Allocation& of) {
    for (int64_t i = 0; i < of.bytes; ++i)
      if (of.memory[i] != static_cast<std::byte>(of.value)) return false;
    return true;
  };
  const auto drop = [&](std::size_t at) {
    ASSERT_TRUE(intact(live[at]));
    ASSERT_TRUE(arena.free(live[at].memory, live[at].bytes));
    shadow.erase(address(live[at].memory));
    live[at] = live.back();
    live.pop_back();
  };
  for (int round = 0; round < 3000; ++round) {
    if (!live.empty() && random() % 100 < (live.size() < 60 ? 30 : 60)) {
      ASSERT_NO_FATAL_FAILURE(drop(random() % live.size()));
      continue;
    }
    const int64_t most = round % 10 == 0 ? kBlock - 64 : 4 * kLeast;
    const int64_t bytes = kLeast + static_cast<int64_t>(random()) % (most - kLeast + 1) / 64 * 64;
    auto* memory = static_cast<std::byte*>(arena.allocate(bytes));
    ASSERT_NE(memory, nullptr);
    ASSERT_EQ(address(memory) % PageArena::kAlignment, 0u);
    const auto above = shadow.lower_bound(address(memory));
    if (above != shadow.end()) {
      ASSERT_LE(address(memory + bytes), above->first);
    }
    if (above != shadow.begin()) {
      ASSERT_LE(std::prev(above)->second, address(memory));
    }
    shadow[address(memory)] = address(memory + bytes);
    live.push_back({memory, bytes, round % 251});
    fill(memory, bytes, live.back().value);
  }
  while (!live.empty()) ASSERT_NO_FATAL_FAILURE(drop(live.size() - 1));
}

TEST(PageArena, TouchesNothingAndGivesFreedPagesBack) {
  PageArena arena;
  const int64_t bytes = 25 * kPage;
  auto* a = static_cast<std::byte*>(arena.allocate(bytes + 64));  // no page's end
  auto* b = static_cast<std::byte*>(arena.allocate(bytes + 64));
  auto* c = static_cast<std::byte*>(arena.allocate(bytes));
  EXPECT_EQ(resident_pages(a, 3 * bytes), 0);
  fill(a, bytes + 64, 1);
  fill(b, bytes + 64, 2);
  fill(c, bytes, 3);
  EXPECT_EQ(resident_pages(a, 3 * bytes), 75);
  EXPECT_TRUE(arena.free(a, bytes + 64));
  EXPECT_EQ(resident_pages(a, bytes), 0);
  EXPECT_EQ(resident_pages(b, bytes + 64), 24) << "shared pages stay";
  EXPECT_EQ(b[0], std::byte{2});
  EXPECT_TRUE(arena.free(c, bytes));
  EXPECT_EQ(b[bytes + 63], std::byte{2});
  EXPECT_TRUE(arena.free(b, bytes + 64));
  EXPECT_EQ(resident_pages(a, 3 * bytes), 0);
  auto* again = static_cast<std::byte*>(arena.allocate(bytes));
  EXPECT_EQ(again, a);
  EXPECT_EQ(again[0], std::byte{0}) << "a fresh page of the system's";
}

// The first blocks that become huge: full of slabs, of which the last is not written.
class HugePages : public ::testing::Test {
 protected:
  void allocate_blocks(int64_t slab_bytes) {
    const auto count = static_cast<std::size_t>(kBlocks * kBlock / slab_bytes);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(arena.collapsed_blocks(), 0) << "not all full: not huge";
      slabs.push_back(static_cast<std::byte*>(arena.allocate(slab_bytes)));
      ASSERT_NE(slabs.back(), nullptr);
      if (i + 1 < count) fill(slabs.back(), slab_bytes, static_cast<int>(i));
    }
    if (arena.collapsed_blocks() == 0)
      GTEST_SKIP() << "this kernel does not collapse pages on request (Linux 6.1)";
  }
  // Frees the slab and takes it again.
  void renew(std::byte* slab) {
    ASSERT_TRUE(arena.free(slab, kLeast));
    ASSERT_EQ(arena.allocate(kLeast), slab);
  }

  static constexpr int64_t kBlocks = PageArena::kLeastWaiting;
  static constexpr std::size_t kSlabs = static_cast<std::size_t>(kBlock / kLeast);  // of a block
  PageArena arena;
  std::vector<std::byte*> slabs;
};

TEST_F(HugePages, AreMadeOfFullBlocksWhichKeepTheirContents) {
  allocate_blocks(kLeast);
  if (IsSkipped()) return;
  EXPECT_EQ(arena.collapsed_blocks(), kBlocks);
  EXPECT_EQ(huge_kib(slabs[0]), kBlocks * kBlock / 1024);
  for (std::size_t i = 0; i + 1 < slabs.size(); ++i)
    for (int64_t at = 0; at < kLeast; ++at) ASSERT_EQ(slabs[i][at], static_cast<std::byte>(i));
  auto* next = static_cast<std::byte*>(arena.allocate(kLeast));
  EXPECT_EQ(next, slabs[0] + kBlocks * kBlock);
  fill(next, 1, 1);
  EXPECT_EQ(resident_pages(next, kBlock), 1) << "the next block is not full";
}

TEST_F(HugePages, GiveFreedPagesBackToo) {
  allocate_blocks(kLeast);
  if (IsSkipped()) return;
  for (const std::size_t at : {3, 4, 300}) EXPECT_TRUE(arena.free(slabs[at], kLeast));
  EXPECT_EQ(resident_pages(slabs[0], kBlocks * kBlock), (kBlocks * kBlock - 3 * kLeast) / kPage);
  EXPECT_EQ(resident_pages(slabs[3], 2 * kLeast), 0);
  EXPECT_EQ(slabs[2][kLeast - 1], std::byte{2});
  EXPECT_EQ(slabs[5][0], std::byte{5});
}

TEST_F(HugePages, AreMadeAgainOfBlocksOfWhichAnEighthWasRenewed) {
  allocate_blocks(kLeast);
  if (IsSkipped()) return;
  const auto renew_each = [&](std::size_t from, std::size_t to) {
    for (int64_t block = 0; block < kBlocks; ++block)
      for (std::size_t i = from; i < to; ++i) renew(slabs[static_cast<std::size_t>(block) * kSlabs + i]);
  };
  renew_each(0, kSlabs / 8 - 1);
  EXPECT_EQ(arena.collapsed_blocks(), kBlocks);
  EXPECT_EQ(huge_kib(slabs[0]), 0);
  renew_each(kSlabs / 8 - 1, kSlabs / 8);
  EXPECT_EQ(arena.collapsed_blocks(), 2 * kBlocks);
  EXPECT_EQ(huge_kib(slabs[0]), kBlocks * kBlock / 1024);
}

TEST_F(HugePages, AreMadeOfBlocksThatWereNeverTouched) {
  const void* first = arena.allocate(kBlock / 4 * 3);
  while (arena.collapsed_blocks() == 0)
    if (arena.allocate(kBlock / 4 * 3) > static_cast<const std::byte*>(first) + 2 * kBlocks * kBlock)
      GTEST_SKIP() << "this kernel does not collapse pages on request (Linux 6.1)";
  EXPECT_EQ(arena.collapsed_blocks(), kBlocks);
  EXPECT_EQ(huge_kib(first), kBlocks * kBlock / 1024);
}

TEST_F(HugePages, WaitForAnEighthOfAll) {
  allocate_blocks(kBlock / 4);
  if (IsSkipped()) return;
  int64_t before = kBlocks, allocated = kBlocks;
  for (; allocated < 64; ++allocated) {
    for (int i = 0; i < 4; ++i) ASSERT_NE(arena.allocate(kBlock / 4), nullptr);
    const int64_t now = arena.collapsed_blocks();
    if (now != before) {
      EXPECT_GE(now - before, std::max(kBlocks, (allocated + 1) / 8));
    }
    before = now;
  }
  EXPECT_GE(before, allocated - allocated / 8);
}

TEST(PageArena, WithoutAddressSpaceGivesNothing) {
  PageArena arena(int64_t{1} << 50);
  EXPECT_EQ(arena.allocate(kLeast), nullptr);
  std::byte elsewhere[64];
  EXPECT_FALSE(arena.free(elsewhere, 64));
}

// In a process of its own: the limit stays.
void allocate_under_a_limit() {
  const rlimit limit{rlim_t{512} << 20, rlim_t{512} << 20};
  if (::setrlimit(RLIMIT_AS, &limit) != 0) std::exit(1);
  if (PageArena().allocate(kLeast) != nullptr) std::exit(2);
  const auto backend = make_cpu_backend();
  {
    std::vector<Buffer> buffers;
    for (int i = 0; i < 100; ++i) {
      buffers.emplace_back(*backend, kLeast, "a test", MemoryUse::kPages);
      fill(buffers.back().data(), kLeast, i);
    }
    for (int i = 0; i < 100; ++i)
      if (buffers[static_cast<std::size_t>(i)].data()[kLeast - 1] != static_cast<std::byte>(i)) std::exit(3);
  }
  std::exit(backend->allocated_bytes() == 0 ? 0 : 4);
}

TEST(PageArena, TheBackEndDoesWithoutIt) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need address space without limit";
#endif
  EXPECT_EXIT(allocate_under_a_limit(), ::testing::ExitedWithCode(0), "");
}

TEST(PageArena, ServesManyThreads) {
  PageArena arena(8 * kBlock);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int id = 0; id < 4; ++id)
    threads.emplace_back([&, id] {
      std::mt19937 random(static_cast<unsigned>(id));
      std::vector<std::pair<std::byte*, int64_t>> live;
      for (int round = 0; round < 500; ++round) {
        if (live.size() > 20) {
          const auto [memory, bytes] = live.front();
          wrong += memory[0] != static_cast<std::byte>(id) || memory[bytes - 1] != static_cast<std::byte>(id);
          wrong += !arena.free(memory, bytes);
          live.erase(live.begin());
        }
        const int64_t bytes = kLeast * (1 + static_cast<int64_t>(random() % 20));
        live.emplace_back(static_cast<std::byte*>(arena.allocate(bytes)), bytes);
        fill(live.back().first, bytes, id);
      }
      for (const auto& [memory, bytes] : live) {
        wrong += memory[bytes / 2] != static_cast<std::byte>(id);
        wrong += !arena.free(memory, bytes);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(PageArena, RefusesToFreeTwice) {
  PageArena arena;
  void* memory = arena.allocate(kLeast);
  ASSERT_TRUE(arena.free(memory, kLeast));
  EXPECT_DEATH(arena.free(memory, kLeast), "freed before");
}

}  // namespace
}  // namespace kva
