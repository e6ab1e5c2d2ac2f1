// What the machine can do, measured beside what we do: a benchmark alternates its own work with the probe of
// its limit, so that both see the same machine, and counts the share as a ratio of medians. scripts/bench
// reads the counters value, limit and share.
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/parallel.h"

namespace kva {

template <class Body>
double seconds_of(const Body& body) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One thread, and as many as the machine has.
std::vector<int64_t> thread_counts();

// values: not empty.
double median(std::vector<double> values);

// Adds up `bytes` bytes, rounded down to whole blocks of 1 MiB, each page of them touched before.
class ReadProbe {
 public:
  explicit ReadProbe(int64_t bytes);
  double seconds(ThreadPool& pool);
  double bytes() const { return static_cast<double>(words_.size()) * 8; }

 private:
  std::vector<uint64_t> words_;
};

// [rows, inner] by [inner, outputs].
struct ProductShape {
  int64_t rows, inner, outputs;
};

// The product peak of a type: one bare oneDNN product on each thread, with weights in the layout that oneDNN
// likes best. f16 weights are multiplied in f32, so their peak is that of f32; so is bf16's where the
// processor multiplies none.
class ProductProbe {
 public:
  ProductProbe(DType type, ThreadPool& pool, ProductShape shape = {1024, 1024, 1024});
  ProductProbe(ProductProbe&&) noexcept;
  ~ProductProbe();
  double seconds();
  // Operations of one seconds() on all threads.
  double flops() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The whole N x N product of rows of `cols` numbers in f32, each thread its share of the rows, as somebody
// would write it who does not stream.
class PlainGemmProbe {
 public:
  PlainGemmProbe(int64_t rows, int64_t cols, ThreadPool& pool);
  double seconds();

 private:
  ThreadPool& pool_;
  int64_t rows_, cols_;
  std::vector<float> numbers_, out_;
};

// XORs and counts 64-bit words from the first-level cache, on one thread, with the widest instructions that
// the processor has for it.
class PopcountProbe {
 public:
  static constexpr int kTurns = 256;  // over the words, in one seconds()

  PopcountProbe();
  ~PopcountProbe();
  // Of one turn.
  double seconds();
  double words() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The seconds of alternating turns, and what they say.
struct Turns {
  std::vector<double> own, probe;
  // Sets the counters value and limit, both in `unit` a second, and share. The work of one turn each.
  void report(benchmark::State& state, double own_work, double probe_work, double unit) const;
};

inline constexpr double kGiga = 1e9;

}  // namespace kva
