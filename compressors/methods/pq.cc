// pq: product quantization. The codebooks are FAISS's k-means of a calibration text's tokens, one for each
// layer and side, for all its KV heads.

#include <faiss/Index.h>
#include <faiss/impl/ProductQuantizer.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compressors/codecs/pq_codec.h"
#include "compressors/learned_format.h"
#include "compressors/method.h"
#include "kernels/nearest.h"
#include "runtime/error.h"

namespace kva {
namespace {

// More than 64 tokens for each of 256 centroids move them little. FAISS would take a sample of its own.
constexpr int kMostTokens = 64 * 256;
constexpr int kIterations = 20;
constexpr float kLargestHalf = 65504.0f;

// Exact nearest centroid for FAISS's k-means. IndexFlatL2 multiplies by BLAS, which is slow where sub-vectors
// have a few numbers, and keeps a heap for the one neighbour: ten times the time.
class NearestCentroid : public faiss::Index {
 public:
  explicit NearestCentroid(int64_t width) : faiss::Index(width, faiss::METRIC_L2) {}

  void add(int64_t n, const float* x) override {
    KVA_CHECK(ntotal == 0, "all centroids at once");
    ntotal = n;
    columns_.resize(static_cast<std::size_t>(n * d));
    biases_.assign(static_cast<std::size_t>(n), 0.0f);
    for (int64_t c = 0; c < n; ++c)
      for (int64_t i = 0; i < d; ++i) {
        const float value = x[c * d + i];
        columns_[static_cast<std::size_t>(i * n + c)] = value;
        biases_[static_cast<std::size_t>(c)] -= 0.5f * value * value;
      }
  }

  void reset() override { ntotal = 0; }

  void search(int64_t n, const float* x, int64_t k, float* distances, int64_t* labels,
              const faiss::SearchParameters* = nullptr) const override {
    KVA_CHECK(k == 1, "the nearest centroid");
    std::vector<int32_t> nearest(static_cast<std::size_t>(n));
    nearest_columns(MatView<const float>(x, n, d), MatView<const float>(columns_.data(), d, ntotal),
                    biases_.data(), nearest.data(), distances);
    for (int64_t p = 0; p < n; ++p) {
      labels[p] = nearest[static_cast<std::size_t>(p)];
      float square = 0.0f;
      for (int64_t i = 0; i < d; ++i) square += x[p * d + i] * x[p * d + i];
      distances[p] = std::max(0.0f, square - 2.0f * distances[p]);
    }
  }

 private:
  std::vector<float> columns_;  // [d, ntotal]
  std::vector<float> biases_;   // -|c|² / 2
};

class PqStep : public LearnedFormat {
 public:
  explicit PqStep(const Arguments& arguments)
      : LearnedFormat("pq"), m_(arguments.integer("m")), bits_(static_cast<int>(arguments.integer("bits"))) {}

  void begin(const StepContext& context) override {
    const int width = context.cache.options().head_dim;
    if (width % m_ == 0) return;
    int64_t divisor = std::min<int64_t>(m_, width);
    while (width % divisor != 0) --divisor;
    throw InputError(fmt::format("pq(m={}): expected a divisor of {}, the numbers of a head; use m={}", m_,
                                 width, divisor));
  }

 protected:
  std::string refusal(const StepContext& context, const DraftStream& stream) const override {
    // The codebooks are of whole tokens.
    if (stream.width == context.cache.options().head_dim && !stream.shared && stream.wraps.empty()) return "";
    return "expected tokens as the model makes them, found what an earlier step left of them; put no step "
           "before pq";
  }

  std::vector<float> learn(const StepContext& context, const PageSet& sample,
                           const LayerSide& of) const override {
    const PqShape shape = shape_of(context);
    const std::vector<float> tokens = tokens_of(shape, sample, of);
    faiss::ProductQuantizer quantizer(static_cast<std::size_t>(shape.width), static_cast<std::size_t>(m_),
                                      static_cast<std::size_t>(bits_));
    quantizer.cp.niter = kIterations;
    quantizer.cp.seed = static_cast<int>(context.seed & 0x7fffffffu);
    quantizer.cp.min_points_per_centroid = 1;
    quantizer.cp.max_points_per_centroid = kMostTokens;
    NearestCentroid nearest(shape.sub_width());
    quantizer.assign_index = &nearest;
    quantizer.train(tokens.size() / static_cast<std::size_t>(shape.width), tokens.data());
    return transposed(shape, quantizer.centroids);
  }

  int64_t codebook_numbers(const StepContext& context) const override {
    const PqShape shape = shape_of(context);
    return shape.width * shape.entries();
  }

  std::shared_ptr<const SideCodec> make(const StepContext& context, const LayerSide& of,
                                        std::span<const float> codebook) const override {
    for (const float value : codebook)
      if (!(std::abs(value) <= kLargestHalf))
        throw InputError(fmt::format("{}: pq: expected centroids within f16, found {}; use quant",
                                     cell_name({of.layer, of.kv_heads.front(), of.side}), value));
    return make_pq_codec(shape_of(context),
                         make_f16_array(context.cache.side_memory(), codebook, "pq codebook"));
  }

 private:
  PqShape shape_of(const StepContext& context) const {
    return {.width = context.cache.options().head_dim, .m = m_, .bits = bits_};
  }

  // Tokens of all the heads, taken at equal distances where there are more than needed.
  std::vector<float> tokens_of(const PqShape& shape, const PageSet& sample, const LayerSide& of) const {
    const int64_t page_tokens = sample.page_tokens;
    const int64_t heads = static_cast<int64_t>(of.kv_heads.size());
    const int64_t found = sample.page_count() * page_tokens * heads;
    if (found < shape.entries())
      throw InputError(fmt::format(
          "pq(bits={}): expected a calibration text of at least {} tokens, found {} in full pages; give a "
          "longer text or use fewer bits",
          bits_, (shape.entries() + heads - 1) / heads, sample.page_count() * page_tokens));
    const int64_t taken = std::min<int64_t>(found, kMostTokens);
    std::vector<float> tokens(static_cast<std::size_t>(taken * shape.width));
    std::vector<float> page(static_cast<std::size_t>(page_tokens * shape.width));
    int64_t loaded = -1;
    for (int64_t i = 0; i < taken; ++i) {
      const int64_t at = i * found / taken;
      if (const int64_t block = at / page_tokens; block != loaded) {
        loaded = block;
        const int head = of.kv_heads[static_cast<std::size_t>(block % heads)];
        read_finite_sample(name(), sample, {of.layer, head, of.side}, block / heads,
                           MatView<float>(page.data(), page_tokens, shape.width));
      }
      std::copy_n(page.data() + at % page_tokens * shape.width, shape.width, tokens.data() + i * shape.width);
    }
    return tokens;
  }

  // FAISS's [m, entries, sub-width] as the codec's [m, sub-width, entries].
  static std::vector<float> transposed(const PqShape& shape, const std::vector<float>& centroids) {
    std::vector<float> result(centroids.size());
    const int64_t sub = shape.sub_width();
    for (int64_t j = 0; j < shape.m; ++j)
      for (int64_t k = 0; k < shape.entries(); ++k)
        for (int64_t i = 0; i < sub; ++i)
          result[static_cast<std::size_t>((j * sub + i) * shape.entries() + k)] =
              centroids[static_cast<std::size_t>((j * shape.entries() + k) * sub + i)];
    return result;
  }

  int64_t m_;
  int bits_;
};

}  // namespace

MethodInfo pq_method() {
  using enum ParameterKind;
  return {
      .name = "pq",
      .meaning =
          "Tokens as numbers of centroids, one for each part of the token; learnt from a calibration "
          "text",
      .kind = MethodKind::kFormat,
      .papers = {{"PQCache: Product Quantization-based KVCache for Long Context LLM Inference",
                  "2407.12820"}},
      .parameters = {{.name = "m",
                      .kind = kInteger,
                      .fallback = "16",
                      .lower = 1,
                      .upper = 1024,
                      .unit = "parts",
                      .help = "parts that a token is cut into, a code each; divides the numbers of a head"},
                     {.name = "bits",
                      .kind = kInteger,
                      .fallback = "8",
                      .lower = 2,
                      .upper = 8,
                      .values = {2, 3, 4, 8},
                      .unit = "bits",
                      .help = "width of a code: 2^bits centroids a part, stored for each layer and side"}},
      .make = [](const Arguments& arguments) -> std::unique_ptr<Step> {
        return std::make_unique<PqStep>(arguments);
      },
  };
}

}  // namespace kva
