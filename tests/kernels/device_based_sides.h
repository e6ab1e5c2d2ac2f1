// Page sides that kernels read with something beside the payload: a base that they scale, or a basis.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/hadamard.h"
#include "tests/kernels/device_sides.h"

namespace kva {

// What side `rows` [tokens, width], stored as `spec` says, becomes with a length for each token and rows of
// its own for `retained` of them.
inline HostSide make_scaled_side(const std::vector<float>& rows, int64_t width, const SideSpec& spec,
                                 int64_t retained, unsigned seed) {
  const HostSide base = make_side(rows, width, spec, seed);
  const auto tokens = static_cast<std::size_t>(static_cast<int64_t>(rows.size()) / width);
  std::mt19937 random(seed + 1);
  HostSide side;
  side.base_format = base.format;
  side.base = base.payload;
  side.numbers = base.numbers;
  SideFormat& format = side.format;
  format.kind = SideKind::kScaledBase;
  format.width = static_cast<int32_t>(width);
  format.tokens = static_cast<int32_t>(tokens);
  std::vector<uint16_t> lengths(tokens), chosen(tokens), kept;
  for (uint16_t& length : lengths)
    length = f16_from_f32(0.25f + static_cast<float>(random() % 1024) / 512.0f);
  std::iota(chosen.begin(), chosen.end(), uint16_t{0});
  std::shuffle(chosen.begin(), chosen.end(), random);
  chosen.resize(static_cast<std::size_t>(retained));
  std::sort(chosen.begin(), chosen.end());
  const auto row_of = [&](std::size_t token) {
    return side.numbers.data() + token * static_cast<std::size_t>(width);
  };
  for (std::size_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < width; ++c) row_of(t)[c] *= f32_from_f16(lengths[t]);
  for (const uint16_t t : chosen)
    for (int64_t c = 0; c < width; ++c) {
      kept.push_back(f16_from_f32(static_cast<float>(random() % 4096) / 1024.0f - 2.0f));
      row_of(t)[c] = f32_from_f16(kept.back());
    }
  format.factors_at = put_halves(side.payload, lengths);
  format.retained = static_cast<int32_t>(retained);
  format.retained_at = put_halves(side.payload, chosen);
  format.retained_rows_at = put_halves(side.payload, kept);
  format.bytes = static_cast<int32_t>(side.payload.size());
  return side;
}

// Vectors [rank, width], as they are stored.
inline std::vector<float> make_basis(int64_t rank, int64_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> vectors(static_cast<std::size_t>(rank * width));
  for (float& x : vectors)
    x = f32_from_f16(f16_from_f32(static_cast<float>(random() % 2048) / 4096.0f - 0.25f));
  return vectors;
}

// Rows that are stored turned, as `spec` says. What is stored is `rows`; width is a power of two.
inline HostSide make_turned_side(const std::vector<float>& rows, int64_t width, const SideSpec& spec,
                                 unsigned seed) {
  HostSide side = make_side(rows, width, spec, seed);
  side.format.hadamard = true;
  side.magnitudes = side.numbers;
  side.terms = width;
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = side.magnitudes.data() + t * width;
    float sum = 0.0f;
    for (int64_t c = 0; c < width; ++c) sum += std::abs(row[c]);
    std::fill_n(row, width, sum / std::sqrt(static_cast<float>(width)));
  }
  hadamard_rows({side.numbers.data(), tokens, width});
  return side;
}

// Coefficients [tokens, rank], stored as `spec` says, on `basis` [rank, width], which is the table's `which`.
// hadamard: they are turned as they are stored; the rank is a power of two.
inline HostSide make_basis_side(const std::vector<float>& coefficients, const std::vector<float>& basis,
                                int64_t width, uint16_t which, const SideSpec& spec, bool hadamard,
                                unsigned seed) {
  const int64_t rank = static_cast<int64_t>(basis.size()) / width;
  const int64_t tokens = static_cast<int64_t>(coefficients.size()) / rank;
  HostSide side = make_side(coefficients, rank, spec, seed);
  std::vector<float> numbers = side.numbers;
  if (hadamard) hadamard_rows({numbers.data(), tokens, rank});
  side.format.on_basis = true;
  side.format.hadamard = hadamard;
  side.basis = which;
  side.base.resize(basis.size() * 2);
  from_f32(basis.data(), DType::kF16, side.base.data(), rank * width);
  side.numbers.assign(static_cast<std::size_t>(tokens * width), 0.0f);
  side.magnitudes = side.numbers;
  side.terms = rank * (hadamard ? 2 : 1);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < width; ++c) {
      double sum = 0.0, magnitude = 0.0;
      for (int64_t r = 0; r < rank; ++r) {
        const double vector = basis[static_cast<std::size_t>(r * width + c)];
        sum += vector * numbers[static_cast<std::size_t>(t * rank + r)];
        // Of a row that is turned any number may have gone into any other.
        double of_row = std::abs(numbers[static_cast<std::size_t>(t * rank + r)]);
        for (int64_t i = 0; hadamard && i < rank; ++i)
          of_row = std::max(of_row, std::sqrt(static_cast<double>(rank)) *
                                        std::abs(double{numbers[static_cast<std::size_t>(t * rank + i)]}));
        magnitude += std::abs(vector) * of_row;
      }
      side.numbers[static_cast<std::size_t>(t * width + c)] = static_cast<float>(sum);
      side.magnitudes[static_cast<std::size_t>(t * width + c)] = static_cast<float>(magnitude);
    }
  return side;
}

}  // namespace kva
