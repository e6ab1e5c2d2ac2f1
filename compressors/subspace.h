// The subspace that rows lie in, mostly: the leading right singular vectors of the rows as a matrix X.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/views.h"

namespace kva {

// How many dimensions a subspace is to have: so many, or as few as keep a share of the squared singular
// values.
struct SubspaceSize {
  int64_t rank = 0;     // 0: as `energy` asks
  double energy = 0.0;  // in (0, 1]
};

struct Subspace {
  int64_t rank = 0;
  std::vector<float> basis;             // [rank, width]: orthonormal rows, the strongest direction first
  std::vector<double> singular_values;  // [rank], falling
  double energy = 0.0;                  // share of all squared singular values that is kept; 1 for zero rows
};

// Both take finite rows [tokens, width] with at least one token and number a row, give at most
// min(tokens, width) dimensions and at least one, make each direction's largest component positive, and
// compute in f64 but where said. Thread-safe; the same rows (and seed) give the same bits.

// From the eigenvectors of the smaller of XᵀX and XXᵀ (LAPACK): singular values are exact to about 1e-8 of
// the largest.
Subspace exact_subspace(MatView<const float> rows, SubspaceSize size);

// A randomized range finder (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.3 and 5.1) with p
// more directions than asked for and q power iterations. With σ the singular values of X and r the rank, the
// sine of the largest principal angle to the exact subspace is expected below
//   C (σ_{r+p-1} / σ_r)^(2q+1) / (1 - (σ_{r+1} / σ_r)²),  C = (√tokens + √(r+p)) e √(r+p) / 3:
// next to nothing where the spectrum falls behind r. Where it does not, the subspace is another one that
// keeps nearly as much. All but the last power iteration are in f32, so a fall of more than 1e6 within the
// rank is lost. Faster than the exact one from about a sixth of the width downwards.
inline constexpr int64_t kSubspaceOversampling = 8;     // p
inline constexpr int64_t kSubspacePowerIterations = 3;  // q
Subspace randomized_subspace(MatView<const float> rows, SubspaceSize size, uint64_t seed);

}  // namespace kva
