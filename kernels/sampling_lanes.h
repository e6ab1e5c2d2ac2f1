// Choosing the next token on the device, as the CPU's sampler does (runtime/model/sampler.h): tokens are
// ordered by logit, equal ones by id; temperature applies first, then top-k, then top-p, then one uniform
// number picks. Here the sums of probabilities are taken in 32 parts, so that a pick differs from the CPU's
// where the uniform number lies within f64 rounding of a token's bound.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

struct Likeliest {
  float logit;
  int32_t token;
};

// NaN and +inf make a logit row useless: they count as +inf.
KVA_HOST_DEVICE inline float ranked(float logit) { return logit != logit ? float_of(0x7f800000u) : logit; }

KVA_HOST_DEVICE inline bool likelier(const Likeliest& a, const Likeliest& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

inline constexpr int32_t kMostVocabulary = 1 << 24;  // tokens that an f32 names, as shuffles carry them

// The most likely of what the lanes have, for all of them.
template <class Warp>
KVA_LANE_CODE Likeliest likeliest_of_warp(Warp& warp, Likeliest best) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const Likeliest other{warp.shuffle_xor(best.logit, mask),
                          static_cast<int32_t>(warp.shuffle_xor(static_cast<float>(best.token), mask))};
    if (likelier(other, best)) best = other;
  }
  return best;
}

// The most likely of logits [first, first + count) by one warp, all lanes get it; count >= 1.
template <class Warp>
KVA_LANE_CODE Likeliest likeliest_of(Warp& warp, const float* logits, int32_t first, int32_t count) {
  Likeliest best{float_of(0xff800000u), first};
  for (int32_t i = first + warp.lane(); i < first + count; i += 32) {
    const Likeliest other{ranked(logits[i]), i};
    if (likelier(other, best)) best = other;
  }
  return likeliest_of_warp(warp, best);
}

// What the host is told: the token, or -1 - the first token whose logit is NaN or +inf.
KVA_HOST_DEVICE inline int32_t token_or_fault(const Likeliest& best) {
  return best.logit == float_of(0x7f800000u) ? -1 - best.token : best.token;
}

// Sorted ascending and stably, these keys order logits from the largest, equal ones (-0 and 0 too) by id.
KVA_HOST_DEVICE inline uint32_t descending_key(float logit) {
  const uint32_t bits = bits_of(logit == 0.0f ? 0.0f : logit);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

struct SampleJob {
  const float* logits = nullptr;   // [vocabulary]
  const int32_t* order = nullptr;  // [vocabulary] token ids, most likely first; null: as they are
  int32_t vocabulary = 0;
  int32_t top_k = 0;  // 0: all
  double top_p = 1.0;
  double temperature = 1.0;  // > 0
  double uniform = 0.0;      // in [0, 1)
};

// Doubles of shared memory that sample() needs.
inline constexpr int kSampleShared = 36;

// Token by one warp; all lanes get it. `best` is the most likely one, its logit finite. With top-k or top-p
// the job has an order.
template <class Warp>
KVA_LANE_CODE int32_t sample(Warp& warp, const SampleJob& job, const Likeliest& best, double* shared) {
  const int32_t count = job.top_k > 0 && job.top_k < job.vocabulary ? job.top_k : job.vocabulary;
  const int32_t part = (count + 31) / 32;
  const auto clipped = [count](int32_t i) { return i < count ? i : count; };
  const int32_t first = clipped(warp.lane() * part);
  const int32_t end = clipped(first + part);
  const auto token = [&job](int32_t i) { return job.order ? job.order[i] : i; };
  const auto weight = [&](int32_t i) {
    return exp((static_cast<double>(job.logits[token(i)]) - static_cast<double>(best.logit)) /
               job.temperature);
  };
  double own = 0.0;
  for (int32_t i = first; i < end; ++i) own += weight(i);
  shared[warp.lane()] = own;
  warp.sync();
  double before = 0.0;
  double total = 0.0;
  for (int lane = 0; lane < 32; ++lane) {
    if (lane == warp.lane()) before = total;
    total += shared[lane];
  }
  // Where top-p cuts: the token that crosses it is kept.
  double& kept = shared[32];
  double& size = shared[33];
  double& picked = shared[34];
  const double limit = job.top_p * total;
  if (warp.lane() == 0) {
    kept = total;
    size = count;
  }
  warp.sync();
  if (job.top_p < 1.0 && before < limit && before + own >= limit && first < end) {
    double sum = before;
    int32_t i = first;
    while (i < end && sum < limit) sum += weight(i++);
    kept = sum;
    size = i;
  }
  warp.sync();
  const double wanted = job.uniform * kept;
  if (warp.lane() == 0) picked = size - 1.0;  // rounding may leave a rest
  warp.sync();
  if (before <= wanted && wanted < before + own) {
    double sum = before;
    for (int32_t i = first; i < end; ++i) {
      sum += weight(i);
      if (sum <= wanted) continue;
      if (i < static_cast<int32_t>(size)) picked = i;
      break;
    }
  }
  warp.sync();
  return token(static_cast<int32_t>(picked));
}

}  // namespace kva
