// What a decoder computes with: Decoder (runtime/model/decoder.h) says what and in which order, this says
// how, on the CPU or on a device.
//
// Matrices are rows of f32 in the math's own memory, which on a device the host cannot read. Weights are
// where the math is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/decoder_lanes.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/batch.h"
#include "runtime/model/model_config.h"
#include "runtime/model/sampler.h"
#include "runtime/model/weights.h"

namespace kva {

// The matrices that a decoder keeps apart, by what they hold.
enum class Room : uint8_t {
  kHidden,
  kNormed,
  kQueries,
  kKeys,
  kValues,
  kAttended,
  kGate,
  kUp,
  kNarrow,  // embeddings of another width than the hidden state
  kScores,  // logits that the host does not ask for
};
inline constexpr int kRooms = 10;

// Used by one thread at a time. Throws InputError where memory ends.
class DecoderMath {
 public:
  virtual ~DecoderMath();

  // Memory for a matrix, uninitialised; good until the room is asked for with more.
  virtual MatView<float> room(Room room, int64_t rows, int64_t cols) = 0;

  // Begins a step: until pick(), matrices have the batch's rows.
  virtual void begin(const Batch& batch) = 0;

  // Row r of out = row rows[r] of the table; or is added to it.
  virtual void look_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) = 0;
  virtual void add_looked_up(const WeightView& table, std::span<const int32_t> rows, MatView<float> out) = 0;

  // x as products with weights of `type` read it, as it is, normalised, or after the activation (and times
  // `up`, where that has data). x may change; the result is good until the next of these three.
  virtual DeviceRows input(MatView<float> x, DType type) = 0;
  virtual DeviceRows normalised(MatView<float> x, const NormWeights& norm, DType type) = 0;
  virtual DeviceRows activated(MatView<float> x, MatView<float> up, DType type) = 0;

  // Several products of one input, whose type is their weights'.
  virtual void multiply(const DeviceRows& x, std::span<const LinearOp> products) = 0;
  // x += input · Wᵀ + bias.
  virtual void add_product(const DeviceRows& input, const Projection& projection, MatView<float> x) = 0;

  virtual void normalise(MatView<float> x, const NormWeights& norm) = 0;  // in place
  virtual void scale(MatView<float> x, float factor) = 0;

  // These rows of x (of the batch's, ascending); matrices have so many until the next step.
  virtual MatView<float> pick(MatView<float> x, const Batch& batch, std::span<const int64_t> rows) = 0;
  // The product that the step ends with; `out` is the host's.
  virtual void logits(const DeviceRows& x, const WeightView& head, MatView<float> out) = 0;
  // The same product, of which only a token for each row is wanted: as the row's sampler chooses. Throws
  // InputError for a logit that is NaN or +inf.
  virtual void choose(const DeviceRows& x, const WeightView& head, std::span<Sampler* const> samplers,
                      std::span<int32_t> tokens) = 0;

  // Scratch held now.
  virtual int64_t workspace_bytes() const = 0;
  // Whether products with such weights round their input to a type that is narrower than f32.
  virtual bool rounds_activations(DType weights) const = 0;
};

// The config gives norms and the activation. Both outlive the math. hardware_bf16: as kernels/matmul.h has
// it.
//
// Products are made sequence by sequence where a sequence brings many rows, and of all rows together only
// where a row's result does not depend on the others: no sequence's numbers depend on its companions.
std::unique_ptr<DecoderMath> make_cpu_math(const ModelConfig& config, ThreadPool& pool, bool hardware_bf16);

// On the backend's device. Products are made of all rows at once, and how they are split depends on their
// number: a sequence's numbers depend on its companions by rounding. Weights with scales are widened to f32
// in parts of bounded size, and multiplied so.
std::unique_ptr<DecoderMath> make_device_math(const ModelConfig& config, std::shared_ptr<Backend> backend);

}  // namespace kva
