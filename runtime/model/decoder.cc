#include "runtime/model/decoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/activation.h"
#include "kernels/convert.h"
#include "kernels/norm.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/model/family.h"

namespace kva {
namespace {

// Rows of one task in element-wise work.
constexpr int64_t kRowBlock = 16;

struct RowGroup {
  int64_t first = 0;
  int64_t rows = 0;
};

// Adds `rows` rows of one sequence. Products are made group by group: a sequence that brings few rows shares
// a group with others, because there a row's result does not depend on its group (kernels/matmul.h); one that
// brings many has a group of its own. So no sequence's numbers depend on its companions.
void add_rows_of_one(std::vector<RowGroup>& groups, int64_t first, int64_t rows) {
  if (rows == 0) return;
  if (!groups.empty() && groups.back().rows + rows <= kFewRows)
    groups.back().rows += rows;
  else
    groups.push_back({first, rows});
}

std::vector<RowGroup> groups_of(const Batch& batch) {
  std::vector<RowGroup> groups;
  for (const BatchSpan& span : batch.spans) add_rows_of_one(groups, span.first_row, span.tokens);
  return groups;
}

// The same for the rows whose logits are wanted.
std::vector<RowGroup> groups_of(const Batch& batch, std::span<const int64_t> logit_rows) {
  std::vector<RowGroup> groups;
  std::size_t next = 0;
  for (const BatchSpan& span : batch.spans) {
    const std::size_t first = next;
    while (next < logit_rows.size() && logit_rows[next] < span.first_row + span.tokens) ++next;
    add_rows_of_one(groups, static_cast<int64_t>(first), static_cast<int64_t>(next - first));
  }
  return groups;
}

// A matrix whose memory is used again; grows only.
class Scratch {
 public:
  MatView<float> shaped(int64_t rows, int64_t cols) {
    const auto count = static_cast<std::size_t>(rows * cols);
    if (values_.size() < count) values_.resize(count);
    return MatView<float>(values_.data(), rows, cols);
  }
  int64_t bytes() const { return static_cast<int64_t>(values_.capacity() * sizeof(float)); }

 private:
  std::vector<float> values_;
};

}  // namespace

struct Decoder::Impl {
  Impl(ThreadPool& pool_, bool hardware_bf16) : pool(pool_), matmul(pool_, hardware_bf16) {}

  ThreadPool& pool;
  Matmul matmul;
  ModelConfig config;
  ModelWeights weights;
  std::optional<TensorArchive> archive;
  std::vector<RowGroup> groups;  // of the step
  Scratch hidden, normed, q, k, v, mixed, gate, up, narrow;

  void check(const Batch& batch, std::span<const int32_t> tokens) const;
  void by_rows(int64_t rows, const std::function<void(int64_t first, int64_t count)>& body);
  void normalise(MatView<const float> x, const NormWeights& norm, MatView<float> out);
  void add(MatView<float> x, MatView<const float> y);
  void scale(MatView<float> x, float factor);
  void multiply(MatView<const float> x, std::span<const LinearOp> ops,
                const std::vector<RowGroup>& row_groups);
  void multiply(MatView<const float> x, const Projection& projection, MatView<float> out);
  MatView<float> embed(const Batch& batch, std::span<const int32_t> tokens);
  void attention(int layer, const Batch& batch, KvCache& cache, MatView<float> x);
  void feed_forward(int layer, MatView<float> x);
  void head(const Batch& batch, MatView<const float> x, std::span<const int64_t> rows, MatView<float> logits);
};

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

Decoder Decoder::load(const std::string& folder, const LoadOptions& options, ThreadPool& pool) {
  auto impl = std::make_unique<Impl>(pool, options.hardware_bf16);
  impl->config = load_config(folder);
  impl->archive = TensorArchive::open_folder(folder);
  WeightLoader loader(*impl->archive, options.weights, pool);
  family_named(impl->config.family).load_weights(impl->config, loader, impl->weights);
  loader.finish(impl->weights);
  return Decoder(std::move(impl));
}

const ModelConfig& Decoder::config() const { return impl_->config; }
std::string_view Decoder::weight_form() const {
  const WeightView& first = impl_->weights.layers.front().q.weight;
  return first.scales ? "int8" : dtype_name(first.dtype);
}
int64_t Decoder::weight_bytes() const { return impl_->weights.bytes; }
int64_t Decoder::parameters() const { return impl_->weights.parameters; }
std::string Decoder::tensor_hash() const { return impl_->archive->hash(); }

int64_t Decoder::bytes_per_token() const {
  const ModelWeights& w = impl_->weights;
  const int64_t rows_only =
      w.position_embedding.bytes() + (impl_->config.tied_embeddings ? 0 : w.token_embedding.bytes());
  return w.bytes - rows_only;
}

bool Decoder::rounds_activations() const {
  return impl_->matmul.rounds_activations(impl_->weights.layers.front().q.weight.dtype);
}

int64_t Decoder::workspace_bytes() const {
  const Impl& d = *impl_;
  int64_t bytes = d.matmul.workspace_bytes();
  for (const Scratch* scratch : {&d.hidden, &d.normed, &d.q, &d.k, &d.v, &d.mixed, &d.gate, &d.up, &d.narrow})
    bytes += scratch->bytes();
  return bytes;
}

KvCacheOptions Decoder::cache_options(int page_tokens, DType kv_dtype, KeyBasis key_basis) const {
  return cache_options_for(impl_->config, page_tokens, kv_dtype, key_basis);
}

KvCacheOptions cache_options_for(const ModelConfig& config, int page_tokens, DType kv_dtype,
                                 KeyBasis key_basis) {
  KvCacheOptions options;
  options.layers = config.layers;
  options.heads = config.heads;
  options.kv_heads = config.kv_heads;
  options.head_dim = config.head_dim;
  options.page_tokens = page_tokens;
  options.k_codec = options.v_codec = make_dense_codec(kv_dtype);
  options.key_basis = key_basis;
  options.rope = config.rope();
  options.scale = config.attention_scale;
  return options;
}

void Decoder::step(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache,
                   std::span<const int64_t> logit_rows, MatView<float> logits) {
  Impl& d = *impl_;
  d.check(batch, tokens);
  KVA_CHECK(std::is_sorted(logit_rows.begin(), logit_rows.end()) &&
                (logit_rows.empty() || (logit_rows.front() >= 0 && logit_rows.back() < batch.rows())),
            "logit rows outside the batch or not ascending");
  KVA_CHECK(logits.rows == static_cast<int64_t>(logit_rows.size()) &&
                (logits.rows == 0 || logits.cols == d.config.vocab),
            "logits of another shape");
  if (batch.rows() == 0) return;
  d.groups = groups_of(batch);
  const MatView<float> x = d.embed(batch, tokens);
  for (int layer = 0; layer < d.config.layers; ++layer) {
    throw_if_interrupted();
    d.attention(layer, batch, cache, x);
    d.feed_forward(layer, x);
  }
  cache.end_step(batch);
  if (!logit_rows.empty()) d.head(batch, x, logit_rows, logits);
}

void Decoder::Impl::check(const Batch& batch, std::span<const int32_t> tokens) const {
  KVA_CHECK(static_cast<int64_t>(tokens.size()) == batch.rows(), "a token for each row");
  for (const int32_t token : tokens)
    if (token < 0 || token >= config.vocab)
      throw InputError(fmt::format("token id {}: expected an id from 0 to {} (the model's vocabulary)", token,
                                   config.vocab - 1));
  for (const BatchSpan& span : batch.spans)
    if (span.start + span.tokens > config.usable_positions())
      throw InputError(fmt::format("a context of {} tokens: expected at most {}; the model ends at {}",
                                   span.start + span.tokens, config.usable_positions(),
                                   config.usable_positions_reason()));
}

void Decoder::Impl::by_rows(int64_t rows, const std::function<void(int64_t, int64_t)>& body) {
  pool.parallel_for((rows + kRowBlock - 1) / kRowBlock, [&](int64_t block, int) {
    const int64_t first = block * kRowBlock;
    body(first, std::min(kRowBlock, rows - first));
  });
}

void Decoder::Impl::normalise(MatView<const float> x, const NormWeights& norm, MatView<float> out) {
  by_rows(x.rows, [&](int64_t first, int64_t count) {
    const auto rows = x.row_range(first, count);
    const auto target = out.row_range(first, count);
    if (config.norm == NormKind::kLayerNorm)
      layer_norm(rows, norm.weight, norm.bias, config.norm_eps, target);
    else
      rms_norm(rows, norm.weight, config.norm_eps, target);
  });
}

void Decoder::Impl::add(MatView<float> x, MatView<const float> y) {
  by_rows(x.rows, [&](int64_t first, int64_t count) {
    add_rows(x.row_range(first, count), y.row_range(first, count));
  });
}

void Decoder::Impl::scale(MatView<float> x, float factor) {
  by_rows(x.rows, [&](int64_t first, int64_t count) {
    for (int64_t r = first; r < first + count; ++r)
      for (int64_t c = 0; c < x.cols; ++c) x.at(r, c) *= factor;
  });
}

void Decoder::Impl::multiply(MatView<const float> x, std::span<const LinearOp> ops,
                             const std::vector<RowGroup>& row_groups) {
  std::vector<LinearOp> part(ops.begin(), ops.end());
  for (const RowGroup& group : row_groups) {
    for (std::size_t i = 0; i < ops.size(); ++i) part[i].out = ops[i].out.row_range(group.first, group.rows);
    matmul.run(x.row_range(group.first, group.rows), part);
  }
}

void Decoder::Impl::multiply(MatView<const float> x, const Projection& projection, MatView<float> out) {
  const LinearOp op{projection.weight, projection.bias, out};
  multiply(x, std::span(&op, 1), groups);
}

MatView<float> Decoder::Impl::embed(const Batch& batch, std::span<const int32_t> tokens) {
  const int64_t rows = batch.rows();
  const bool projected = weights.embedding_in.weight.data != nullptr;
  const MatView<float> x = hidden.shaped(rows, config.hidden);
  const MatView<float> embedded = projected ? narrow.shaped(rows, config.embedding) : x;
  const WeightView& table = weights.token_embedding;
  for (int64_t r = 0; r < rows; ++r)
    widen_weights(table.row_range(tokens[static_cast<std::size_t>(r)], 1), embedded.row(r));
  if (projected) multiply(embedded, weights.embedding_in, x);
  if (config.position != PositionKind::kLearned) return x;
  const WeightView& positions = weights.position_embedding;
  const MatView<float> position = normed.shaped(1, config.hidden);
  for (const BatchSpan& span : batch.spans) {
    for (int64_t t = 0; t < span.tokens; ++t) {
      const int64_t row = span.start + t + config.position_offset;
      widen_weights(positions.row_range(row, 1), position.data);
      add_rows(x.row_range(span.first_row + t, 1), position);
    }
  }
  return x;
}

void Decoder::Impl::attention(int layer, const Batch& batch, KvCache& cache, MatView<float> x) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  const int64_t width = int64_t{config.heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  MatView<const float> input = x;
  if (config.norm_before) {
    const MatView<float> target = normed.shaped(x.rows, config.hidden);
    normalise(x, w.attention_norm, target);
    input = target;
  }
  const MatView<float> queries = q.shaped(x.rows, width);
  const MatView<float> keys = k.shaped(x.rows, kv_width);
  const MatView<float> values = v.shaped(x.rows, kv_width);
  const LinearOp ops[] = {
      {w.q.weight, w.q.bias, queries}, {w.k.weight, w.k.bias, keys}, {w.v.weight, w.v.bias, values}};
  multiply(input, ops, groups);
  if (config.scale_by_layer) scale(queries, 1.0f / static_cast<float>(layer + 1));
  cache.append(layer, batch, keys, values);
  const MatView<float> attended = mixed.shaped(x.rows, width);
  cache.attend(layer, batch, queries, attended);
  const MatView<float> out = normed.shaped(x.rows, config.hidden);
  multiply(attended, w.output, out);
  add(x, out);
  if (!config.norm_before) normalise(x, w.attention_norm, x);
}

void Decoder::Impl::feed_forward(int layer, MatView<float> x) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  MatView<const float> input = x;
  if (config.norm_before) {
    const MatView<float> target = normed.shaped(x.rows, config.hidden);
    normalise(x, w.ffn_norm, target);
    input = target;
  }
  const MatView<float> ups = up.shaped(x.rows, config.ffn);
  MatView<float> inner = ups;
  if (config.gated_ffn) {
    inner = gate.shaped(x.rows, config.ffn);
    const LinearOp ops[] = {{w.gate.weight, w.gate.bias, inner}, {w.up.weight, w.up.bias, ups}};
    multiply(input, ops, groups);
  } else {
    multiply(input, w.up, ups);
  }
  by_rows(x.rows, [&](int64_t first, int64_t count) {
    if (config.gated_ffn)
      activate_gated(config.activation, inner.row_range(first, count), ups.row_range(first, count));
    else
      activate(config.activation, inner.row_range(first, count));
  });
  const MatView<float> out = normed.shaped(x.rows, config.hidden);
  multiply(inner, w.down, out);
  add(x, out);
  if (!config.norm_before) normalise(x, w.ffn_norm, x);
}

void Decoder::Impl::head(const Batch& batch, MatView<const float> x, std::span<const int64_t> rows,
                         MatView<float> logits) {
  const std::vector<RowGroup> row_groups = groups_of(batch, rows);
  MatView<float> last = normed.shaped(logits.rows, config.hidden);
  for (int64_t i = 0; i < last.rows; ++i)
    std::copy_n(x.row(rows[static_cast<std::size_t>(i)]), config.hidden, last.row(i));
  if (config.final_norm) normalise(last, weights.final_norm, last);
  if (weights.embedding_out.weight.data != nullptr) {
    const MatView<float> projected = narrow.shaped(last.rows, config.embedding);
    const LinearOp op{weights.embedding_out.weight, nullptr, projected};
    multiply(last, std::span(&op, 1), row_groups);
    last = projected;
  }
  const LinearOp op{weights.head, nullptr, logits};
  multiply(last, std::span(&op, 1), row_groups);
}

}  // namespace kva
