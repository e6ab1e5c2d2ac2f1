// What a candidate's logits cost beside the base's, token by token: the loss of each, the divergence of the
// two distributions, and whether they agree on the most likely token.
//
// Logits are f32; exponentials and sums are f64. A row is summed in blocks of the vocabulary by one thread,
// so results are bit-equal at any number of threads; instruction sets may differ by rounding (about 1e-15).
//
// A row that holds NaN or +inf, or nothing but -inf, is no distribution: all numbers that need it are NaN. A
// logit of -inf is a probability of 0: KL is inf where the base gives that token any, the loss is inf where
// it is the target.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/parallel.h"
#include "kernels/views.h"

namespace kva {

struct TokenScore {
  double nll_base = 0.0;  // -ln p_base
  double nll = 0.0;       // -ln p
  // KL(base‖candidate) in nats. Not clamped: rounding can leave equal distributions at about -1e-16. Rows of
  // equal bits give exactly 0.
  double kl = 0.0;
  double p_base = 0.0;    // the base's probability of the target
  double p = 0.0;         // the candidate's
  bool same_top = false;  // equal argmax, the lowest index where logits tie; false beside a broken row
};

// The base's rows with what every candidate shares, computed once.
class BaseDistributions {
 public:
  // logits: [rows, vocabulary], vocabulary >= 1, must outlive this object. targets: [rows], each in
  // [0, vocabulary).
  BaseDistributions(MatView<const float> logits, std::span<const int32_t> targets, ThreadPool& pool);

  // candidate: [rows, vocabulary]; scores: [rows].
  void compare(MatView<const float> candidate, std::span<TokenScore> scores, ThreadPool& pool) const;

 private:
  struct Row {
    float max = 0.0f;  // NaN where the row is no distribution
    int64_t argmax = 0;
    double exp_sum = 0.0;  // sum of exp(logit - max)
    int32_t target = 0;
  };
  TokenScore score(const Row& row, int64_t r, const float* candidate) const;

  MatView<const float> logits_;
  std::vector<Row> rows_;
};

}  // namespace kva
