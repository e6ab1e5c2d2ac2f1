#include "runtime/model/weight_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace kva {
namespace {

TEST(WeightMemory, PiecesAreAlignedApartAndStay) {
  WeightMemory memory;
  struct Piece {
    std::byte* data;
    int64_t bytes;
  };
  std::vector<Piece> pieces;
  // Together more than one block; one is larger than any block, one is empty.
  for (const int64_t bytes : {1, 63, 64, 65, 0, 20 << 20, 7 << 20, 10 << 20, 40 << 20, 3}) {
    pieces.push_back({memory.allocate(bytes), bytes});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pieces.back().data) % 64, 0u) << bytes;
    std::memset(pieces.back().data, static_cast<int>(pieces.size()), static_cast<std::size_t>(bytes));
  }
  for (std::size_t i = 0; i < pieces.size(); ++i)
    for (int64_t b = 0; b < pieces[i].bytes; b += 61)
      ASSERT_EQ(static_cast<std::size_t>(pieces[i].data[b]), i + 1) << "piece " << i << ", byte " << b;
}

}  // namespace
}  // namespace kva
