#include "tests/bench/probes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <dnnl.hpp>
#include <numeric>
#include <random>
#include <unordered_map>
#include <utility>

#include "kernels/convert.h"
#include "kernels/matmul.h"
#include "kernels/similarity.h"

namespace kva {
namespace {

constexpr std::size_t kReadBlock = 1 << 17;  // words
constexpr std::size_t kPopcountWords = 512;  // 4 KiB

std::vector<float> random_numbers(int64_t count) {
  std::mt19937 random(1);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& number : numbers) number = static_cast<float>(random() >> 8) / 8388608.0f - 1.0f;
  return numbers;
}

using CountDiffering = uint64_t (*)(const uint64_t* words, uint64_t mask);

uint64_t differing(const uint64_t* words, uint64_t mask) {
  uint64_t sum = 0;
  for (std::size_t i = 0; i < kPopcountWords; ++i)
    sum += static_cast<uint64_t>(__builtin_popcountll(words[i] ^ mask));
  return sum;
}

#if defined(__x86_64__)
__attribute__((target("popcnt"))) uint64_t differing_popcnt(const uint64_t* words, uint64_t mask) {
  uint64_t sums[4] = {};
  for (std::size_t i = 0; i < kPopcountWords; i += 4)
    for (std::size_t j = 0; j < 4; ++j)
      sums[j] += static_cast<uint64_t>(__builtin_popcountll(words[i + j] ^ mask));
  return sums[0] + sums[1] + sums[2] + sums[3];
}

__attribute__((target("avx512f,avx512vpopcntdq"))) uint64_t differing_avx512(const uint64_t* words,
                                                                             uint64_t mask) {
  __m512i sums[4] = {};
  const __m512i masks = _mm512_set1_epi64(static_cast<long long>(mask));
  for (std::size_t i = 0; i < kPopcountWords; i += 32)
    for (std::size_t j = 0; j < 4; ++j)
      sums[j] = _mm512_add_epi64(
          sums[j], _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_load_si512(words + i + 8 * j), masks)));
  uint64_t lanes[32];
  for (std::size_t j = 0; j < 4; ++j) _mm512_storeu_si512(lanes + 8 * j, sums[j]);
  return std::accumulate(std::begin(lanes), std::end(lanes), uint64_t{0});
}

CountDiffering best_differing() {
  if (__builtin_cpu_supports("avx512vpopcntdq")) return differing_avx512;
  if (__builtin_cpu_supports("popcnt")) return differing_popcnt;
  return differing;
}
#else
CountDiffering best_differing() { return differing; }
#endif

}  // namespace

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<int64_t> thread_counts() {
  const int64_t all = ThreadPool().threads();
  return all == 1 ? std::vector<int64_t>{1} : std::vector<int64_t>{1, all};
}

void Turns::report(benchmark::State& state, double own_work, double probe_work, double unit) const {
  const double value = own_work / median(own);
  const double limit = probe_work / median(probe);
  state.counters["value"] = value / unit;
  state.counters["limit"] = limit / unit;
  state.counters["share"] = value / limit;
}

ReadProbe::ReadProbe(int64_t bytes)
    : words_(std::max(kReadBlock, static_cast<std::size_t>(bytes / 8) / kReadBlock * kReadBlock)) {
  std::iota(words_.begin(), words_.end(), uint64_t{0});
}

double ReadProbe::seconds(ThreadPool& pool) {
  return seconds_of([&] {
    pool.parallel_for(static_cast<int64_t>(words_.size() / kReadBlock), [&](int64_t block, int) {
      const uint64_t* at = words_.data() + static_cast<std::size_t>(block) * kReadBlock;
      uint64_t sums[32] = {};
      for (std::size_t i = 0; i < kReadBlock; i += 32)
        for (std::size_t lane = 0; lane < 32; ++lane) sums[lane] += at[i + lane];
      benchmark::DoNotOptimize(sums);
    });
  });
}

struct ProductProbe::Impl {
  // One thread's operands and result.
  struct Worker {
    dnnl::stream stream;
    dnnl::memory x, weights, out;
  };

  Impl(DType type, ThreadPool& pool_, const ProductShape& shape_) : pool(pool_), shape(shape_) {
    using dnnl::memory;
    const bool bf16 = Matmul(pool).rounds_activations(type);
    const auto number = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::dims x = {shape.rows, shape.inner}, w = {shape.inner, shape.outputs};
    const memory::desc rows(x, number, memory::format_tag::ab);
    const memory::desc any(w, number, memory::format_tag::any);
    const memory::desc out({shape.rows, shape.outputs}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(rows, any, out), engine);
    product = dnnl::matmul(chosen);
    std::vector<float> numbers = random_numbers(shape.inner * std::max(shape.rows, shape.outputs));
    for (int i = 0; i < pool.threads(); ++i) {
      Worker worker{dnnl::stream(engine), memory(rows, engine), memory(chosen.weights_desc(), engine),
                    memory(out, engine)};
      for (const auto& [operand, dims] : {std::pair{&worker.x, x}, std::pair{&worker.weights, w}}) {
        memory plain({dims, memory::data_type::f32, memory::format_tag::ab}, engine, numbers.data());
        dnnl::reorder(plain, *operand).execute(worker.stream, plain, *operand);
        worker.stream.wait();
      }
      workers.push_back(std::move(worker));
    }
  }

  ThreadPool& pool;
  ProductShape shape;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::matmul product;
  std::vector<Worker> workers;
};

ProductProbe::ProductProbe(DType type, ThreadPool& pool, ProductShape shape)
    : impl_(std::make_unique<Impl>(type, pool, shape)) {}
ProductProbe::ProductProbe(ProductProbe&&) noexcept = default;
ProductProbe::~ProductProbe() = default;

double ProductProbe::seconds() {
  const auto count = static_cast<int64_t>(impl_->workers.size());
  return seconds_of([&] {
    impl_->pool.parallel_for(count, [&](int64_t index, int) {
      Impl::Worker& worker = impl_->workers[static_cast<std::size_t>(index)];
      impl_->product.execute(
          worker.stream,
          {{DNNL_ARG_SRC, worker.x}, {DNNL_ARG_WEIGHTS, worker.weights}, {DNNL_ARG_DST, worker.out}});
    });
  });
}

double ProductProbe::flops() const {
  const ProductShape& shape = impl_->shape;
  return 2.0 * static_cast<double>(shape.rows * shape.inner * shape.outputs) *
         static_cast<double>(impl_->workers.size());
}

PlainGemmProbe::PlainGemmProbe(int64_t rows, int64_t cols, ThreadPool& pool)
    : pool_(pool),
      rows_(rows),
      cols_(cols),
      numbers_(random_numbers(rows * cols)),
      out_(static_cast<std::size_t>(rows * rows)) {}

double PlainGemmProbe::seconds() {
  const MatView<const float> all(numbers_.data(), rows_, cols_);
  const int64_t parts = pool_.threads();
  return seconds_of([&] {
    pool_.parallel_for(parts, [&](int64_t part, int) {
      const int64_t first = rows_ * part / parts;
      const int64_t count = rows_ * (part + 1) / parts - first;
      dot_tile({numbers_.data() + first * cols_, count, cols_}, all,
               {out_.data() + first * rows_, count, rows_});
    });
    benchmark::DoNotOptimize(out_.data());
  });
}

struct PopcountProbe::Impl {
  alignas(64) uint64_t words[kPopcountWords];
};

PopcountProbe::PopcountProbe() : impl_(std::make_unique<Impl>()) {
  std::mt19937_64 random(1);
  for (uint64_t& word : impl_->words) word = random();
}
PopcountProbe::~PopcountProbe() = default;

double PopcountProbe::seconds() {
  const CountDiffering count = best_differing();
  const double all = seconds_of([&] {
    for (uint64_t turn = 0; turn < kTurns; ++turn) benchmark::DoNotOptimize(count(impl_->words, turn));
  });
  return all / kTurns;
}

double PopcountProbe::words() const { return static_cast<double>(kPopcountWords); }

}  // namespace kva
