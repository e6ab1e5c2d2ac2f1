#include "runtime/model/device_weights.h"

#include <map>
#include <vector>

#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

struct Uploaded {
  std::shared_ptr<Backend> backend;
  std::vector<Buffer> buffers;  // freed before the backend
};

class Uploader {
 public:
  Uploader(const ModelConfig& config, const std::shared_ptr<Backend>& backend)
      : config_(config), uploaded_(std::make_shared<Uploaded>(Uploaded{backend, {}})) {}

  void move(WeightView& weights) {
    if (!weights.data) return;
    const int64_t scales = weights.scales ? weights.rows * int8_groups(weights.cols) : 0;
    weights.data = at(weights.data, weights.bytes() - scales * static_cast<int64_t>(sizeof(float)));
    move(weights.scales, scales);
  }
  void move(Projection& projection) {
    move(projection.weight);
    move(projection.bias, projection.weight.rows);
  }
  void move(NormWeights& norm) {
    move(norm.weight, config_.hidden);
    move(norm.bias, config_.hidden);
  }
  std::shared_ptr<const void> owner() const { return uploaded_; }

 private:
  void move(const float*& values, int64_t count) {
    if (values) values = static_cast<const float*>(at(values, count * static_cast<int64_t>(sizeof(float))));
  }
  // Where a copy of these bytes is; a tied embedding is copied once.
  const void* at(const void* host, int64_t bytes) {
    throw_if_interrupted();
    const auto [place, is_new] = places_.try_emplace(host, nullptr);
    if (is_new) {
      Buffer& buffer = uploaded_->buffers.emplace_back(*uploaded_->backend, bytes, "weights");
      uploaded_->backend->upload(buffer.data(), host, bytes);
      place->second = buffer.data();
    }
    return place->second;
  }

  const ModelConfig& config_;
  std::shared_ptr<Uploaded> uploaded_;
  std::map<const void*, const void*> places_;
};

// Products of one input read it in one type.
void check_types(const LayerWeights& layer) {
  const auto differ = [](const Projection& a, const Projection& b) {
    return a.weight.data && b.weight.data && a.weight.dtype != b.weight.dtype;
  };
  if (differ(layer.q, layer.k) || differ(layer.q, layer.v) || differ(layer.gate, layer.up))
    throw InputError(
        "--weights stored: a device multiplies one input by weights of one type, found several types in a "
        "layer; "
        "use --weights f32, f16 or bf16");
}

}  // namespace

ModelWeights upload_weights(const ModelWeights& host, const ModelConfig& config,
                            const std::shared_ptr<Backend>& backend) {
  KVA_CHECK(backend->device() != nullptr, "a backend with a device");
  ModelWeights weights = host;
  Uploader uploader(config, backend);
  uploader.move(weights.token_embedding);
  uploader.move(weights.position_embedding);
  uploader.move(weights.embedding_in);
  uploader.move(weights.embedding_out);
  for (LayerWeights& layer : weights.layers) {
    check_types(layer);
    for (NormWeights* norm : {&layer.attention_norm, &layer.ffn_norm}) uploader.move(*norm);
    for (Projection* projection :
         {&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down})
      uploader.move(*projection);
  }
  uploader.move(weights.final_norm);
  uploader.move(weights.head);
  weights.owner = uploader.owner();
  return weights;
}

}  // namespace kva
