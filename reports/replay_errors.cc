#include "reports/replay_errors.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/dense_rows.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

NumberError difference(const std::vector<float>& exact, const std::vector<float>& read) {
  NumberError error;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double by = double{read[i]} - exact[i];
    error.error_squares += by * by;
    error.squares += double{exact[i]} * exact[i];
    error.max_abs = std::isnan(by) ? by : std::max(error.max_abs, std::abs(by));
  }
  return error;
}

NumberError sum_of(const std::vector<NumberError>& parts) {
  NumberError sum;
  for (const NumberError& part : parts) sum.add(part);
  return sum;
}

// One prompt and KV head of a layer, laid end to end: [tokens, head_dim].
struct HeadTokens {
  std::vector<float> k, v;
};

class LayerComparison {
 public:
  LayerComparison(const Replay& replay, int layer) : replay_(replay), pages_(replay.pages()), layer_(layer) {}

  NumberError side_error(Side side, ThreadPool& pool) const {
    std::vector<NumberError> parts(pages_.pages.size());
    pool.parallel_for(pages_.page_count(), [&](int64_t page, int) {
      std::vector<float> exact(page_values()), read(page_values());
      for (int head = 0; head < pages_.kv_heads; ++head) {
        const Cell cell{layer_, head, side};
        read_captured(pages_, page, cell, pages_.key_basis, view(exact.data()));
        replay_.read_page(page, cell, pages_.key_basis, view(read.data()));
        parts[static_cast<std::size_t>(page)].add(difference(exact, read));
      }
    });
    return sum_of(parts);
  }

  NumberError attention_error(ThreadPool& pool) const {
    std::vector<int64_t> first_pages;
    int64_t first = 0;
    for (const CapturedPrompt& prompt : pages_.prompts) {
      first_pages.push_back(first);
      first += prompt.pages;
    }
    std::vector<NumberError> parts(pages_.prompts.size() * static_cast<std::size_t>(pages_.kv_heads));
    pool.parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t index, int) {
      throw_if_interrupted();
      const auto prompt = static_cast<std::size_t>(index / pages_.kv_heads);
      if (const int64_t count = pages_.prompts[prompt].pages; count > 0)
        parts[static_cast<std::size_t>(index)] =
            head_error(first_pages[prompt], count, static_cast<int>(index % pages_.kv_heads));
    });
    return sum_of(parts);
  }

 private:
  std::size_t page_values() const {
    return static_cast<std::size_t>(pages_.page_tokens) * static_cast<std::size_t>(pages_.head_dim);
  }
  MatView<float> view(float* rows) const { return MatView<float>(rows, pages_.page_tokens, pages_.head_dim); }

  template <typename Read>
  HeadTokens gather(int64_t first, int64_t count, int head, const Read& read) const {
    HeadTokens tokens;
    for (auto* side : {&tokens.k, &tokens.v}) {
      side->resize(static_cast<std::size_t>(count) * page_values());
      for (int64_t page = 0; page < count; ++page)
        read(first + page, Cell{layer_, head, side == &tokens.k ? Side::kKey : Side::kValue},
             view(side->data() + static_cast<std::size_t>(page) * page_values()));
    }
    return tokens;
  }

  NumberError head_error(int64_t first, int64_t count, int head) const {
    const HeadTokens exact =
        gather(first, count, head, [&](int64_t page, const Cell& cell, MatView<float> rows) {
          read_captured(pages_, page, cell, KeyBasis::kRotated, rows);
        });
    const HeadTokens read =
        gather(first, count, head, [&](int64_t page, const Cell& cell, MatView<float> rows) {
          replay_.read_page(page, cell, KeyBasis::kRotated, rows);
        });
    const int64_t tokens = count * pages_.page_tokens;
    std::vector<int64_t> positions;
    for (int64_t i = 0, most = std::min(tokens, kStandInQueries); i < most; ++i)
      positions.push_back((i + 1) * tokens / most - 1);
    return difference(attend(exact.k, positions, exact), attend(exact.k, positions, read));
  }

  // Outputs of the queries that stand at `positions` of `queries`: [positions, head_dim].
  std::vector<float> attend(const std::vector<float>& queries, const std::vector<int64_t>& positions,
                            const HeadTokens& tokens) const {
    const int64_t dim = pages_.head_dim;
    const auto count = static_cast<int64_t>(positions.size());
    const int64_t keys = positions.back() + 1;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    std::vector<float> asked(static_cast<std::size_t>(count * dim)), out(asked.size());
    for (int64_t q = 0; q < count; ++q)
      for (int64_t c = 0; c < dim; ++c)
        asked[static_cast<std::size_t>(q * dim + c)] =
            scale * queries[static_cast<std::size_t>(positions[static_cast<std::size_t>(q)] * dim + c)];
    std::vector<float> weights(static_cast<std::size_t>(count * keys));
    const MatView<float> scores(weights.data(), count, keys);
    dense_scores(MatView<const float>(asked.data(), count, dim), tokens.k.data(), DType::kF32, scores);
    for (int64_t q = 0; q < count; ++q)
      std::fill(scores.row(q) + positions[static_cast<std::size_t>(q)] + 1, scores.row(q) + keys,
                -std::numeric_limits<float>::infinity());
    std::vector<float> max(positions.size()), sum(positions.size()), values(out.size());
    const PartialState state{
        .values = MatView<float>(values.data(), count, dim), .max = max.data(), .sum = sum.data()};
    clear(state);
    softmax_update(scores, state);
    dense_accumulate(scores, tokens.v.data(), DType::kF32, state.values);
    finish(state, MatView<float>(out.data(), count, dim));
    return out;
  }

  const Replay& replay_;
  const PageSet& pages_;
  int layer_;
};

}  // namespace

void NumberError::add(const NumberError& other) {
  error_squares += other.error_squares;
  squares += other.squares;
  max_abs = std::isnan(other.max_abs) ? other.max_abs : std::max(max_abs, other.max_abs);
}

double NumberError::relative_l2() const {
  if (error_squares == 0.0) return 0.0;
  return squares > 0.0 ? std::sqrt(error_squares / squares) : std::numeric_limits<double>::quiet_NaN();
}

std::vector<LayerErrors> replay_errors(const Replay& replay, ThreadPool& pool,
                                       const std::function<void(int64_t layers)>& on_layer) {
  std::vector<LayerErrors> layers;
  for (int layer = 0; layer < replay.pages().layers; ++layer) {
    throw_if_interrupted();
    const LayerComparison comparison(replay, layer);
    layers.push_back({comparison.side_error(Side::kKey, pool), comparison.side_error(Side::kValue, pool),
                      comparison.attention_error(pool)});
    on_layer(layer + 1);
  }
  return layers;
}

}  // namespace kva
