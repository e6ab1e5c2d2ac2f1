// Choosing the next token on the device, as the CPU's sampler does (runtime/model/sampler.h): tokens are
// ordered by logit, equal ones by id; temperature applies first, then top-k, then top-p, then one uniform
// number picks. Sums of probabilities are taken in 32 parts, one a lane, and the CPU's sampler takes the same
// sums of the same numbers: the same logits and the same uniform number give the same token.
#pragma once

#include <bit>
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

KVA_HOST_DEVICE inline double product_of(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}
KVA_HOST_DEVICE inline double sum_of(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}
KVA_HOST_DEVICE inline double power_of_two(int32_t exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
#if defined(__CUDA_ARCH__)
  return __longlong_as_double(static_cast<long long>(bits));
#else
  return std::bit_cast<double>(bits);
#endif
}

// e^x for x <= 0, to about 1e-16 of it, the same bits on the CPU and on a device: libraries differ in the
// last.
KVA_HOST_DEVICE inline double exp_of(double x) {
  if (!(x > -745.0)) return 0.0;
  const auto k = static_cast<int32_t>(sum_of(product_of(x, 1.4426950408889634), -0.5));  // to nearest
  // ln 2 in two parts, of which the first times k is exact.
  double r = sum_of(x, product_of(-k, 6.93147180369123816490e-01));
  r = sum_of(r, product_of(-k, 1.90821492927058770002e-10));
  // Taylor's series to r^13: |r| < 0.35.
  const double parts[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  double sum = 1.0 / 6227020800;
  for (const double part : parts) sum = sum_of(product_of(sum, r), part);
  if (k >= -1000) return product_of(sum, power_of_two(k));
  return product_of(product_of(sum, power_of_two(k + 500)), power_of_two(-500));
}

// What the 32 lanes that choose a token tell each other.
struct SampleState {
  double sums[32];  // of their tokens' weights
  double total;
  double kept;     // by top-p, of the total
  int32_t size;    // tokens kept
  int32_t picked;  // by its place in the order; none: -1
};

// The part of the tokens, in their order, that a lane has.
struct SamplePart {
  KVA_HOST_DEVICE SamplePart(const SampleJob& job, int32_t lane) {
    const int32_t count = sampled_tokens(job);
    const int32_t part = (count + 31) / 32;
    first = lane * part < count ? lane * part : count;
    end = count - first < part ? count : first + part;
  }
  KVA_HOST_DEVICE static int32_t sampled_tokens(const SampleJob& job) {
    return job.top_k > 0 && job.top_k < job.vocabulary ? job.top_k : job.vocabulary;
  }

  int32_t first;
  int32_t end;
};

KVA_HOST_DEVICE inline int32_t sampled_token(const SampleJob& job, int32_t place) {
  return job.order ? job.order[place] : place;
}
KVA_HOST_DEVICE inline double sample_weight(const SampleJob& job, const Likeliest& best, int32_t place) {
  const auto logit = static_cast<double>(job.logits[sampled_token(job, place)]);
  return exp_of((logit - static_cast<double>(best.logit)) / job.temperature);
}

// Four steps, each by all lanes when all are done with the one before.
KVA_HOST_DEVICE inline void sample_sum(const SampleJob& job, const Likeliest& best, int32_t lane,
                                       SampleState& state) {
  const SamplePart part(job, lane);
  double sum = 0.0;
  for (int32_t i = part.first; i < part.end; ++i) sum = sum_of(sum, sample_weight(job, best, i));
  state.sums[lane] = sum;
}
KVA_HOST_DEVICE inline double sample_sum_before(const SampleState& state, int32_t lane) {
  double sum = 0.0;
  for (int32_t i = 0; i < lane; ++i) sum = sum_of(sum, state.sums[i]);
  return sum;
}
KVA_HOST_DEVICE inline void sample_total(const SampleJob& job, int32_t lane, SampleState& state) {
  if (lane != 0) return;
  state.total = sample_sum_before(state, 32);
  state.kept = state.total;
  state.size = SamplePart::sampled_tokens(job);
  state.picked = -1;
}
// Where top-p cuts: the token that crosses it is kept.
KVA_HOST_DEVICE inline void sample_cut(const SampleJob& job, const Likeliest& best, int32_t lane,
                                       SampleState& state) {
  if (job.top_p >= 1.0) return;
  const SamplePart part(job, lane);
  const double limit = product_of(job.top_p, state.total);
  double sum = sample_sum_before(state, lane);
  if (!(sum < limit && sum_of(sum, state.sums[lane]) >= limit)) return;
  int32_t i = part.first;
  while (i < part.end && sum < limit) sum = sum_of(sum, sample_weight(job, best, i++));
  state.kept = sum;
  state.size = i;
}
KVA_HOST_DEVICE inline void sample_pick(const SampleJob& job, const Likeliest& best, int32_t lane,
                                        SampleState& state) {
  const SamplePart part(job, lane);
  const double wanted = product_of(job.uniform, state.kept);
  double sum = sample_sum_before(state, lane);
  if (!(sum <= wanted && wanted < sum_of(sum, state.sums[lane]))) return;
  int32_t i = part.first;
  for (; i < part.end - 1; ++i) {
    sum = sum_of(sum, sample_weight(job, best, i));
    if (sum > wanted) break;
  }
  state.picked = i;
}
// Rounding may leave a rest: the last that is kept gets it.
KVA_HOST_DEVICE inline int32_t sampled(const SampleJob& job, const SampleState& state) {
  const int32_t last = state.size - 1;
  return sampled_token(job, state.picked >= 0 && state.picked < last ? state.picked : last);
}

// Token by one warp; all lanes get it. `best` is the most likely one, its logit finite. With top-k or top-p
// the job has an order. The warp shares `state`.
template <class Warp>
KVA_LANE_CODE int32_t sample(Warp& warp, const SampleJob& job, const Likeliest& best, SampleState& state) {
  const int32_t lane = warp.lane();
  sample_sum(job, best, lane, state);
  warp.sync();
  sample_total(job, lane, state);
  warp.sync();
  sample_cut(job, best, lane, state);
  warp.sync();
  sample_pick(job, best, lane, state);
  warp.sync();
  return sampled(job, state);
}

}  // namespace kva
