// Product quantization (Jegou, Douze and Schmid, PAMI 2011): a token is m sub-vectors, each stored as the
// number of the nearest of 2^bits centroids.
//
// Attention reads it in coordinates of its own, one for each sub-vector and centroid: of a token they are 1
// where it uses the centroid and else 0. So queries are projected to tables of products with the centroids
// once for a run of pages, a score is a sum of m table entries, and weights are summed by centroid before one
// product with the codebook lifts them.
#pragma once

#include <memory>

#include "runtime/kv/codec.h"
#include "runtime/kv/side_memory.h"

namespace kva {

struct PqShape {
  int64_t width = 0;  // of a token; a multiple of m
  int64_t m = 1;
  int bits = 8;  // 2 to 4, or 8

  int64_t sub_width() const { return width / m; }
  int64_t entries() const { return int64_t{1} << bits; }
};

// codebook: f16 [m, sub_width, entries], so that a row holds one coordinate of all centroids. Payload: a
// packed row (kernels/packed.h) of m codes a token. encode() throws InputError for numbers that are not
// finite; of equally near centroids it takes the first.
std::shared_ptr<const SideCodec> make_pq_codec(const PqShape& shape, SideArray codebook);
std::shared_ptr<const SideCodec> make_pq_codec(const PqShape& shape,
                                               std::shared_ptr<const SideArray> codebook);

}  // namespace kva
