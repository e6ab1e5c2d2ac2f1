#include <algorithm>

#include "kernels/check.h"
#include "kernels/convert.h"
#include "kernels/dtype.h"
#include "kernels/packed.h"

namespace kva {

void packed_scales(const PackedPage& page, const uint16_t* stored, float* scales) {
  const int64_t groups = page.groups();
  if (page.axis == ScaleAxis::kChannel || groups == 1)
    return to_f32(stored, DType::kF16, scales, page.scale_count());
  for (int64_t t = 0; t < page.tokens; ++t)
    for (int64_t g = 0; g < groups; ++g) scales[g * page.tokens + t] = f32_from_f16(stored[t * groups + g]);
}

void pack_tail(const PackedShape& shape, const uint8_t* codes, std::byte* packed) {
  const int64_t block = shape.full_blocks;
  const int64_t lanes = shape.tail_lanes;
  uint32_t words[PackedShape::kLanes] = {};
  for (int j = 0; j < shape.slices; ++j) {
    const int64_t first = shape.first_channel(block, j);
    const int64_t count = shape.channels(block, j);
    for (int64_t i = 0; i < count; ++i)
      words[i] |= static_cast<uint32_t>(codes[first + i]) << (shape.bits * j);
  }
  auto* out = reinterpret_cast<uint8_t*>(packed) + block * PackedShape::kLanes * shape.lane_bytes;
  for (int plane = 0; plane < shape.lane_bytes; ++plane, out += lanes)
    for (int64_t i = 0; i < lanes; ++i) out[i] = static_cast<uint8_t>(words[i] >> (8 * plane));
}

void unpack_row(const std::byte* packed, int bits, int64_t width, uint8_t* codes) {
  KVA_CHECK(bits == 8 || (bits >= 2 && bits <= 4), "codes of 8, 4, 3 or 2 bits");
  const PackedShape shape(bits, width);
  const uint32_t mask = (1u << bits) - 1;
  const auto* in = reinterpret_cast<const uint8_t*>(packed);
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const int64_t lanes = shape.lanes(block);
    uint32_t words[PackedShape::kLanes] = {};
    for (int plane = 0; plane < shape.lane_bytes; ++plane, in += lanes)
      for (int64_t i = 0; i < lanes; ++i) words[i] |= static_cast<uint32_t>(in[i]) << (8 * plane);
    for (int j = 0; j < shape.slices; ++j) {
      const int64_t first = shape.first_channel(block, j);
      const int64_t count = shape.channels(block, j);
      for (int64_t i = 0; i < count; ++i)
        codes[first + i] = static_cast<uint8_t>((words[i] >> (bits * j)) & mask);
    }
  }
}

}  // namespace kva
