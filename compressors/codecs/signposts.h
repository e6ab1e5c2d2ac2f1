// Levels of one-dimensional codebooks: those of least squared error for weighted numbers, and for the
// standard normal distribution.
#pragma once

#include <cstdint>
#include <vector>

namespace kva {

// Weighted numbers in [-1, 1], in bins so narrow that only their sums matter. Copyable; add() and merging are
// exact but for f64 rounding, so the order decides the last bits.
class NumberHistogram {
 public:
  static constexpr int kBins = 4096;

  NumberHistogram();
  // |number| <= 1, weight >= 0.
  void add(double number, double weight);
  double weight() const;

  // The `count` levels of least sum of weight * (number - nearest level)^2 that cut between bins, ascending:
  // k-means in one dimension, solved exactly by dynamic programming (Wu, J. Algorithms 1991). Where fewer
  // bins are filled the last level repeats; without any weight the levels divide [-1, 1] evenly.
  std::vector<float> levels(int count) const;

 private:
  struct Bin {
    double weight = 0.0;
    double sum = 0.0;
    double squares = 0.0;
  };
  std::vector<Bin> bins_;
};

// The 2^bits levels of least mean squared error for a standard normal number, ascending and symmetric (Max,
// IRE Transactions 1960; Lloyd 1982). 1 <= bits <= 8.
std::vector<double> lloyd_max_levels(int bits);

}  // namespace kva
