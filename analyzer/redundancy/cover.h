// How many pages could really be freed: a cover in which every freed page has a kept page it resembles.
//
// Leader clustering in the order of the pages (Hartigan, Clustering Algorithms, 1975): a page is freed when a
// kept page before it is over the threshold, else it is kept. It is what a cache could do as pages arrive; it
// is not the least cover, which is NP-hard to find.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/redundancy/device_pages.h"
#include "analyzer/redundancy/page_matrix.h"

namespace kva {

// Of one KV head: whether page p is freed at threshold t, [threshold][page].
struct Cover {
  std::vector<std::vector<char>> cosine;
  std::vector<std::vector<char>> l2;
};

// Streams the products again; memory O(pages * thresholds). Runs on the calling thread.
Cover cover_pages(const PageMatrix& pages, int head, std::span<const float> thresholds);

// The same of each head on a device, in tiles of up to tile_pages pages a side. Throws InputError where
// backend.device(), which is not null, has not the memory.
std::vector<Cover> cover_heads_on_device(const PageMatrix& pages, std::span<const float> thresholds,
                                         Backend& backend, int64_t tile_pages = kDeviceTilePages);

}  // namespace kva
