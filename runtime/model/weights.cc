#include "runtime/model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/convert.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weight_memory.h"

namespace kva {
namespace {

// Rows of one task when matrices are converted or transposed.
constexpr int64_t kBlockRows = 32;

}  // namespace

struct WeightLoader::Storage {
  TensorArchive archive;
  WeightMemory memory;
};

WeightForm weight_form(std::string_view name) {
  WeightForm form;
  form.int8 = name == "int8";
  if (form.int8 || name == "stored") return form;
  form.type = parse_dtype(name);
  if (!form.type)
    throw InputError(fmt::format("--weights: expected stored, f32, f16, bf16 or int8, found {}", name));
  return form;
}

WeightLoader::WeightLoader(const TensorArchive& archive, const WeightForm& form, ThreadPool& pool)
    : pool_(pool), form_(form), storage_(std::make_shared<Storage>(Storage{archive, {}})) {}

void WeightLoader::choose_prefix(std::initializer_list<std::string_view> candidates, std::string_view probe) {
  prefix_ = *candidates.begin();
  for (const std::string_view candidate : candidates) {
    if (storage_->archive.find(fmt::format("{}{}", candidate, probe)) == nullptr) continue;
    prefix_ = candidate;
    return;
  }
}

void WeightLoader::count(int64_t parameters, int64_t bytes) {
  bytes_ += bytes;
  parameters_ += parameters;
}

WeightView WeightLoader::matrix(std::string_view name, int64_t rows, int64_t cols) {
  return unprefixed_matrix(fmt::format("{}{}", prefix_, name), rows, cols);
}

WeightView WeightLoader::head(const ModelConfig& config, const WeightView& token_embedding) {
  return config.tied_embeddings ? token_embedding
                                : unprefixed_matrix("lm_head.weight", config.vocab, config.embedding);
}

WeightView WeightLoader::unprefixed_matrix(const std::string& name, int64_t rows, int64_t cols) {
  throw_if_interrupted();
  const TensorView& tensor = storage_->archive.at(name, {rows, cols});
  check_finite(tensor);
  if (!form_.int8 && form_.type.value_or(tensor.dtype) == tensor.dtype) return copied(tensor, rows, cols);
  return made(tensor, rows, cols, [&](int64_t first, MatView<float> values) {
    to_f32(tensor.data + first * cols * dtype_bytes(tensor.dtype), tensor.dtype, values.data,
           values.rows * cols);
  });
}

WeightView WeightLoader::transposed(std::string_view name, int64_t inputs, int64_t outputs) {
  throw_if_interrupted();
  const TensorView& tensor = storage_->archive.at(fmt::format("{}{}", prefix_, name), {inputs, outputs});
  check_finite(tensor);
  return made(tensor, outputs, inputs, [&](int64_t first, MatView<float> values) {
    float column[kBlockRows];
    for (int64_t i = 0; i < inputs; ++i) {
      to_f32(tensor.data + (i * outputs + first) * dtype_bytes(tensor.dtype), tensor.dtype, column,
             values.rows);
      for (int64_t r = 0; r < values.rows; ++r) values.at(r, i) = column[r];
    }
  });
}

WeightView WeightLoader::copied(const TensorView& tensor, int64_t rows, int64_t cols) {
  std::byte* target = storage_->memory.allocate(tensor.bytes);
  const int64_t row_bytes = cols * dtype_bytes(tensor.dtype);
  pool_.parallel_for((rows + kBlockRows - 1) / kBlockRows, [&](int64_t block, int) {
    const int64_t first = block * kBlockRows * row_bytes;
    std::memcpy(target + first, tensor.data + first,
                static_cast<std::size_t>(std::min(kBlockRows * row_bytes, tensor.bytes - first)));
  });
  storage_->archive.forget(tensor);
  count(tensor.count(), tensor.bytes);
  return {target, tensor.dtype, rows, cols};
}

WeightView WeightLoader::made(const TensorView& tensor, int64_t rows, int64_t cols, const ReadRows& read) {
  const DType type = form_.int8 ? DType::kF32 : form_.type.value_or(tensor.dtype);
  const int64_t element = form_.int8 ? 1 : dtype_bytes(type);
  const int64_t groups = int8_groups(cols);
  std::byte* target = storage_->memory.allocate(rows * cols * element);
  auto* scales = form_.int8 ? reinterpret_cast<float*>(storage_->memory.allocate(
                                  rows * groups * static_cast<int64_t>(sizeof(float))))
                            : nullptr;
  pool_.parallel_for((rows + kBlockRows - 1) / kBlockRows, [&](int64_t block, int) {
    const int64_t first = block * kBlockRows;
    const int64_t count = std::min(kBlockRows, rows - first);
    std::vector<float> widened(static_cast<std::size_t>(count * cols));
    const MatView<float> values(widened.data(), count, cols);
    read(first, values);
    std::byte* at = target + first * cols * element;
    if (scales)
      quantize_int8(values, reinterpret_cast<int8_t*>(at), scales + first * groups);
    else
      from_f32(values.data, type, at, count * cols);
  });
  storage_->archive.forget(tensor);
  const WeightView view{target, type, rows, cols, scales};
  count(tensor.count(), view.bytes());
  if (type != tensor.dtype && !scales) {  // f16 ends at 65504
    TensorView result = tensor;
    result.dtype = type;
    result.data = target;
    result.bytes = view.bytes();
    result.name = fmt::format("{} (converted to {})", tensor.name, dtype_name(type));
    check_finite(result);
  }
  return view;
}

const float* WeightLoader::vector(std::string_view name, int64_t count) {
  const TensorView& tensor = storage_->archive.at(fmt::format("{}{}", prefix_, name), {count});
  check_finite(tensor);
  this->count(count, count * static_cast<int64_t>(sizeof(float)));
  auto* values =
      reinterpret_cast<float*>(storage_->memory.allocate(count * static_cast<int64_t>(sizeof(float))));
  to_f32(tensor.data, tensor.dtype, values, count);
  return values;
}

Projection WeightLoader::projection(const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
  Projection result{matrix(name + ".weight", outputs, inputs)};
  if (bias) result.bias = vector(name + ".bias", outputs);
  return result;
}

NormWeights WeightLoader::norm(const std::string& name, int64_t width, bool bias) {
  NormWeights result{vector(name + ".weight", width)};
  if (bias) result.bias = vector(name + ".bias", width);
  return result;
}

NormWeights WeightLoader::plain_norm(int64_t width) {
  auto* values =
      reinterpret_cast<float*>(storage_->memory.allocate(2 * width * static_cast<int64_t>(sizeof(float))));
  std::fill_n(values, width, 1.0f);
  std::fill_n(values + width, width, 0.0f);
  return {values, values + width};
}

void WeightLoader::finish(ModelWeights& weights) {
  weights.bytes = bytes_;
  weights.parameters = parameters_;
  weights.owner = storage_;
}

}  // namespace kva
