#include "runtime/model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/model/decoder_math.h"
#include "runtime/model/device_weights.h"
#include "runtime/model/family.h"

namespace kva {

struct Decoder::Impl {
  ModelConfig config;
  ModelWeights weights;
  std::optional<TensorArchive> archive;
  std::shared_ptr<DeviceOps> device;  // null: the CPU
  std::unique_ptr<DecoderMath> math;

  void put_on_device();
  void check(const Batch& batch, std::span<const int32_t> tokens) const;
  MatView<float> embed(const Batch& batch, std::span<const int32_t> tokens);
  DeviceRows before(MatView<float> x, const NormWeights& norm, DType type);
  void attention(int layer, const Batch& batch, KvCache& cache, MatView<float> x);
  void feed_forward(int layer, MatView<float> x);
  // All but the head; the hidden state, of no rows where the batch has none.
  MatView<float> layers(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache);
  // What the head multiplies for these rows.
  DeviceRows before_head(const Batch& batch, MatView<float> x, std::span<const int64_t> rows);
};

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

Decoder Decoder::load(const std::string& folder, const LoadOptions& options, ThreadPool& pool) {
  auto impl = std::make_unique<Impl>();
  impl->config = load_config(folder);
  impl->archive = TensorArchive::open_folder(folder);
  WeightLoader loader(*impl->archive, options.weights, pool);
  family_named(impl->config.family).load_weights(impl->config, loader, impl->weights);
  loader.finish(impl->weights);
  impl->device = options.device;
  if (impl->device)
    impl->put_on_device();
  else
    impl->math = make_cpu_math(impl->config, pool, options.hardware_bf16);
  return Decoder(std::move(impl));
}

void Decoder::Impl::put_on_device() {
  const std::shared_ptr<Backend> backend = make_device_backend(device);
  weights = upload_weights(weights, config, backend);
  math = make_device_math(config, backend);
}

const ModelConfig& Decoder::config() const { return impl_->config; }
std::string Decoder::device() const { return impl_->device ? impl_->device->name() : "cpu"; }
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
  return impl_->math->rounds_activations(impl_->weights.layers.front().q.weight.dtype);
}

int64_t Decoder::workspace_bytes() const { return impl_->math->workspace_bytes(); }

KvCacheOptions Decoder::cache_options(int page_tokens, DType kv_dtype, KeyBasis key_basis) const {
  KvCacheOptions options = cache_options_for(impl_->config, page_tokens, kv_dtype, key_basis);
  if (impl_->device) options.backend = make_device_backend(impl_->device);
  return options;
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

namespace {

void check_rows(const Batch& batch, std::span<const int64_t> rows) {
  KVA_CHECK(std::is_sorted(rows.begin(), rows.end()) &&
                (rows.empty() || (rows.front() >= 0 && rows.back() < batch.rows())),
            "logit rows outside the batch or not ascending");
}

}  // namespace

void Decoder::step(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache,
                   std::span<const int64_t> logit_rows, MatView<float> logits) {
  Impl& d = *impl_;
  check_rows(batch, logit_rows);
  KVA_CHECK(logits.rows == static_cast<int64_t>(logit_rows.size()) &&
                (logits.rows == 0 || logits.cols == d.config.vocab),
            "logits of another shape");
  const MatView<float> x = d.layers(batch, tokens, cache);
  if (!logit_rows.empty()) d.math->logits(d.before_head(batch, x, logit_rows), d.weights.head, logits);
}

void Decoder::step(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache,
                   std::span<const int64_t> logit_rows, std::span<Sampler* const> samplers,
                   std::span<int32_t> chosen) {
  Impl& d = *impl_;
  check_rows(batch, logit_rows);
  KVA_CHECK(samplers.size() == logit_rows.size() && chosen.size() == logit_rows.size(),
            "a sampler and a token for each logit row");
  const MatView<float> x = d.layers(batch, tokens, cache);
  if (!logit_rows.empty())
    d.math->choose(d.before_head(batch, x, logit_rows), d.weights.head, samplers, chosen);
}

MatView<float> Decoder::Impl::layers(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache) {
  check(batch, tokens);
  KVA_CHECK(cache.options().backend->device() == device.get(), "a cache where the decoder computes");
  if (batch.rows() == 0) return {};
  math->begin(batch);
  const MatView<float> x = embed(batch, tokens);
  cache.begin_step(batch);
  // Steps of one token a sequence follow each other, and launch alike.
  if (device && batch.rows() == std::ssize(batch.spans)) device->begin_recording();
  for (int layer = 0; layer < config.layers; ++layer) {
    throw_if_interrupted();
    attention(layer, batch, cache, x);
    feed_forward(layer, x);
  }
  if (device) device->end_recording();
  cache.end_step(batch);
  return x;
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

MatView<float> Decoder::Impl::embed(const Batch& batch, std::span<const int32_t> tokens) {
  const MatView<float> x = math->room(Room::kHidden, batch.rows(), config.hidden);
  const Projection& projection = weights.embedding_in;
  if (projection.weight.data) {
    const MatView<float> narrow = math->room(Room::kNarrow, batch.rows(), config.embedding);
    math->look_up(weights.token_embedding, tokens, narrow);
    const LinearOp op{projection.weight, projection.bias, x};
    math->multiply(math->input(narrow, projection.weight.dtype), {&op, 1});
  } else {
    math->look_up(weights.token_embedding, tokens, x);
  }
  if (config.position != PositionKind::kLearned) return x;
  std::vector<int32_t> positions;
  for (const BatchSpan& span : batch.spans)
    for (int64_t t = 0; t < span.tokens; ++t)
      positions.push_back(static_cast<int32_t>(span.start + t + config.position_offset));
  math->add_looked_up(weights.position_embedding, positions, x);
  return x;
}

// What a layer's part multiplies: normalised here, or only after the part.
DeviceRows Decoder::Impl::before(MatView<float> x, const NormWeights& norm, DType type) {
  return config.norm_before ? math->normalised(x, norm, type) : math->input(x, type);
}

void Decoder::Impl::attention(int layer, const Batch& batch, KvCache& cache, MatView<float> x) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  const int64_t width = int64_t{config.heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  const MatView<float> queries = math->room(Room::kQueries, x.rows, width);
  const MatView<float> keys = math->room(Room::kKeys, x.rows, kv_width);
  const MatView<float> values = math->room(Room::kValues, x.rows, kv_width);
  const LinearOp ops[] = {
      {w.q.weight, w.q.bias, queries}, {w.k.weight, w.k.bias, keys}, {w.v.weight, w.v.bias, values}};
  math->multiply(before(x, w.attention_norm, w.q.weight.dtype), ops);
  if (config.scale_by_layer) math->scale(queries, 1.0f / static_cast<float>(layer + 1));
  cache.append(layer, batch, keys, values);
  const MatView<float> attended = math->room(Room::kAttended, x.rows, width);
  cache.attend(layer, batch, queries, attended);
  math->add_product(math->input(attended, w.output.weight.dtype), w.output, x);
  if (!config.norm_before) math->normalise(x, w.attention_norm);
}

void Decoder::Impl::feed_forward(int layer, MatView<float> x) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  const DeviceRows input = before(x, w.ffn_norm, w.up.weight.dtype);
  const MatView<float> up = math->room(Room::kUp, x.rows, config.ffn);
  MatView<float> inner = up;
  if (config.gated_ffn) {
    inner = math->room(Room::kGate, x.rows, config.ffn);
    const LinearOp ops[] = {{w.gate.weight, w.gate.bias, inner}, {w.up.weight, w.up.bias, up}};
    math->multiply(input, ops);
  } else {
    const LinearOp op{w.up.weight, w.up.bias, up};
    math->multiply(input, {&op, 1});
  }
  const MatView<float> factor = config.gated_ffn ? up : MatView<float>();
  math->add_product(math->activated(inner, factor, w.down.weight.dtype), w.down, x);
  if (!config.norm_before) math->normalise(x, w.ffn_norm);
}

DeviceRows Decoder::Impl::before_head(const Batch& batch, MatView<float> x, std::span<const int64_t> rows) {
  const MatView<float> last = math->pick(x, batch, rows);
  const Projection& projection = weights.embedding_out;
  const bool projects = projection.weight.data != nullptr;
  const DType type = projects ? projection.weight.dtype : weights.head.dtype;
  const DeviceRows input =
      config.final_norm ? math->normalised(last, weights.final_norm, type) : math->input(last, type);
  if (!projects) return input;
  const MatView<float> narrow = math->room(Room::kNarrow, last.rows, config.embedding);
  const LinearOp op{projection.weight, nullptr, narrow};
  math->multiply(input, {&op, 1});
  return math->input(narrow, weights.head.dtype);
}

}  // namespace kva
