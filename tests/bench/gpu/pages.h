// Pages that benchmarks make up on the device. Only in builds with CUDA; what fails there throws
// std::runtime_error.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_buffer.h"
#include "kernels/device_page.h"
#include "kernels/packed.h"

namespace kva {

// Of distinct pages in a case, far beyond the caches.
inline constexpr int64_t kLeastBytes = int64_t{1} << 30;
inline constexpr int32_t kPageTokens = 64;

// Random 16-bit words that are f16 and bf16 numbers below 2 in size, whatever reads them.
DeviceBuffer random_bytes(int64_t bytes);
DeviceBuffer random_floats(int64_t count, float from, float to);
DeviceBuffer zeros(std::size_t bytes);

// Of a page side of kPageTokens tokens, as codecs lay it out. The rest is of packed ones: what shares a
// scale, and how many numbers are outliers.
SideFormat page_format(SideKind kind, int32_t width, ScaleAxis axis = ScaleAxis::kToken,
                       int32_t outliers = 0);
// 1% of the numbers of such a side, rounded up.
int32_t outliers_of(int32_t width);
// Outliers at places all over their pages, in `count` payloads that are `stride` bytes apart.
void put_places(std::byte* payloads, int64_t stride, int64_t count, const SideFormat& format);

}  // namespace kva
