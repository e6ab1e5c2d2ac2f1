#include "reports/layer_error.h"

#include <cmath>
#include <limits>

#include "kernels/check.h"

namespace kva {
namespace {

double relative(double difference, double norm) { return std::sqrt(difference / norm); }

// One table's side, page by page, into rows that callers keep between pages.
struct PageRows {
  std::vector<float> values;
  MatView<float> read(const KvCache& cache, const PageAddress& at, int64_t tokens) {
    const int dim = cache.options().head_dim;
    values.resize(static_cast<std::size_t>(tokens * dim));
    const MatView<float> rows(values.data(), tokens, dim);
    cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side, rows);
    return rows;
  }
};

int64_t position_of(const PageFacts& page, int64_t token) {
  return page.contiguous ? page.start + token : int64_t{page.positions[static_cast<std::size_t>(token)]};
}

bool is_hidden(const PageFacts& page, int64_t token) {
  return !page.contiguous &&
         page.biases[static_cast<std::size_t>(token)] == -std::numeric_limits<float>::infinity();
}

int64_t read_tokens(const PageFacts& page) {
  int64_t hidden = 0;
  for (int64_t t = 0; t < page.tokens; ++t) hidden += is_hidden(page, t) ? 1 : 0;
  return page.tokens - hidden;
}

int64_t read_tokens(const KvCache& cache, PageAddress at) {
  const int64_t pages = cache.pages(at.sequence, at.layer, at.kv_head);
  int64_t sum = 0;
  for (at.page = 0; at.page < pages; ++at.page) sum += read_tokens(cache.page(at));
  return sum;
}

// What is left of the position encoding to do to the stored keys of a page. shift: from the index of a key
// among those that are read to the position that the next query's own stands for (cache-relative).
void rotate_keys(const KvCacheOptions& options, const PageFacts& page, int64_t first_index, int64_t shift,
                 MatView<float> rows) {
  if (!options.rope || options.key_basis == KeyBasis::kRotated) return;
  int64_t index = first_index;
  for (int64_t t = 0; t < rows.rows; ++t) {
    int64_t turns = page.start;
    if (options.key_basis == KeyBasis::kPlain) turns = position_of(page, t);
    if (options.positions == PositionMode::kCacheRelative && !is_hidden(page, t)) turns = index++ + shift;
    options.rope->rotate(rows.row(t), turns);
  }
}

// All tokens of the base's side, [tokens, head_dim].
std::vector<float> read_all(const KvCache& cache, PageAddress at, int64_t tokens) {
  const int dim = cache.options().head_dim;
  std::vector<float> all(static_cast<std::size_t>(tokens * dim));
  const int64_t pages = cache.pages(at.sequence, at.layer, at.kv_head);
  int64_t next = 0;
  for (at.page = 0; at.page < pages; ++at.page) {
    const PageFacts page = cache.page(at);
    KVA_CHECK(page.contiguous && page.start == next, "the base holds every token");
    cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side,
                    MatView<float>(all.data() + next * dim, page.tokens, dim));
    next += page.tokens;
  }
  KVA_CHECK(next == tokens, "the base holds every token");
  return all;
}

struct SideSums {
  double difference = 0;
  double norm = 0;
  int64_t tokens = 0;  // compared
};

SideSums compare_side(const KvCache& base, const PageAddress& base_at, const KvCache& candidate,
                      PageAddress at, int64_t tokens) {
  const int dim = base.options().head_dim;
  const std::vector<float> exact = read_all(base, base_at, tokens);
  const int64_t pages = candidate.pages(at.sequence, at.layer, at.kv_head);
  const int64_t shift = tokens - read_tokens(candidate, at);
  PageRows buffer;
  SideSums sums;
  for (at.page = 0; at.page < pages; ++at.page) {
    const PageFacts page = candidate.page(at);
    const MatView<float> rows = buffer.read(candidate, at, page.tokens);
    if (at.side == Side::kKey) rotate_keys(candidate.options(), page, sums.tokens, shift, rows);
    for (int64_t t = 0; t < page.tokens; ++t) {
      if (is_hidden(page, t)) continue;
      const int64_t position = position_of(page, t);
      KVA_CHECK(position >= 0 && position < tokens, "a token of the sequence");
      const float* was = exact.data() + position * dim;
      const float* is = rows.row(t);
      for (int i = 0; i < dim; ++i) {
        const double difference = double{is[i]} - double{was[i]};
        sums.difference += difference * difference;
        sums.norm += double{was[i]} * double{was[i]};
      }
    }
    sums.tokens += read_tokens(page);
  }
  return sums;
}

}  // namespace

double LayerError::k() const { return relative(k_difference, k_norm); }
double LayerError::v() const { return relative(v_difference, v_norm); }
double LayerError::missing_share() const {
  return static_cast<double>(missing) / static_cast<double>(tokens);
}

void add_layer_errors(const KvCache& base, SequenceId base_sequence, const KvCache& candidate,
                      SequenceId sequence, ThreadPool& pool, std::vector<LayerError>& layers) {
  const KvCacheOptions& options = base.options();
  const int64_t tokens = base.tokens(base_sequence);
  KVA_CHECK(candidate.tokens(sequence) == tokens && candidate.options().layers == options.layers &&
                candidate.options().kv_heads == options.kv_heads &&
                candidate.options().head_dim == options.head_dim,
            "both caches saw the same tokens of one model");
  KVA_CHECK(!options.rope || options.key_basis == KeyBasis::kRotated, "the base's keys are rotated");
  const int64_t heads = options.kv_heads;
  std::vector<SideSums> sums(static_cast<std::size_t>(options.layers * heads * 2));
  pool.parallel_for(static_cast<int64_t>(sums.size()), [&](int64_t index, int) {
    const auto layer = static_cast<int>(index / (2 * heads));
    const auto head = static_cast<int>(index / 2 % heads);
    const Side side = index % 2 == 0 ? Side::kKey : Side::kValue;
    sums[static_cast<std::size_t>(index)] = compare_side(base, {base_sequence, layer, head, 0, side},
                                                         candidate, {sequence, layer, head, 0, side}, tokens);
  });
  layers.resize(static_cast<std::size_t>(options.layers));
  for (std::size_t i = 0; i < sums.size(); i += 2) {
    LayerError& layer = layers[i / static_cast<std::size_t>(2 * heads)];
    layer.k_difference += sums[i].difference;
    layer.k_norm += sums[i].norm;
    layer.v_difference += sums[i + 1].difference;
    layer.v_norm += sums[i + 1].norm;
    layer.tokens += tokens;
    layer.missing += tokens - sums[i].tokens;
  }
}

}  // namespace kva
