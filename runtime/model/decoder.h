// One decoder for all families: what differs between them is in ModelConfig and ModelWeights.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/parallel.h"
#include "runtime/io/safetensors.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/model_config.h"
#include "runtime/model/sampler.h"
#include "runtime/model/weights.h"

namespace kva {

struct LoadOptions {
  WeightForm weights = {};
  // false widens bf16 weights for every product, so that activations are never rounded (kernels/matmul.h).
  bool hardware_bf16 = true;
  // Holds the weights and computes; null: the CPU does.
  std::shared_ptr<DeviceOps> device;
};

// A cache that fits a model, with dense pages.
KvCacheOptions cache_options_for(const ModelConfig& config, int page_tokens, DType kv_dtype,
                                 KeyBasis key_basis);

// Used by one thread at a time; parallel inside. The pool must outlive it.
class Decoder {
 public:
  // Reads a model folder in Hugging Face layout. Throws InputError for an architecture or option that is not
  // implemented and for tensors that are missing, of another shape or type, or not finite.
  static Decoder load(const std::string& folder, const LoadOptions& options, ThreadPool& pool);
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) = delete;

  const ModelConfig& config() const;

  // "cpu", or the device's name.
  std::string device() const;

  // As cache_options_for(), in memory of the decoder's device: step() takes caches that live where it
  // computes.
  KvCacheOptions cache_options(int page_tokens, DType kv_dtype, KeyBasis key_basis) const;

  // One step of a ragged batch. tokens: [batch rows]. The keys and values of all rows join the cache, and row
  // i of logits [logit_rows.size(), vocab] becomes the logits after batch row logit_rows[i] (ascending).
  // Throws InputError, before anything changes, for a token id outside the vocabulary or a position beyond
  // config().usable_positions().
  //
  // After Ctrl-C throws Interrupted between layers; the batch's sequences are then good for freeing only.
  //
  // On the CPU a sequence's logits are bit for bit the same whatever sequences share the step. Cut into steps
  // in another way they are the same but for f32 rounding (and, with bf16 weights, the rounding of
  // activations). On a device the library that multiplies sums in another order for another number of rows:
  // there both hold but for rounding, and only the same steps give the same bits.
  void step(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache,
            std::span<const int64_t> logit_rows, MatView<float> logits);

  // The same step, of which only the next tokens are wanted: of row logit_rows[i] the one that samplers[i]
  // chooses, into chosen[i]. On a device nothing else comes back. Throws InputError for a logit that is NaN
  // or +inf, after the step.
  void step(const Batch& batch, std::span<const int32_t> tokens, KvCache& cache,
            std::span<const int64_t> logit_rows, std::span<Sampler* const> samplers,
            std::span<int32_t> chosen);

  // The form that matrices are held and multiplied in, as --weights spells it.
  std::string_view weight_form() const;
  // Bytes and number of the model's parameters; a tied embedding counts once.
  int64_t weight_bytes() const;
  int64_t parameters() const;
  // Bytes of weights that one decoding step of one sequence reads.
  int64_t bytes_per_token() const;
  // Scratch held now.
  int64_t workspace_bytes() const;
  // Whether products round their activations to the weights' type: with bf16 weights and many rows where the
  // CPU multiplies bf16, with 16-bit weights always on a device.
  bool rounds_activations() const;
  // The checkpoint's identity (TensorArchive::hash()). Reads every weight.
  std::string tensor_hash() const;

 private:
  struct Impl;
  explicit Decoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
