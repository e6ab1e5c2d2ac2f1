#include "runtime/model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <new>

#include "kernels/convert.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

constexpr std::size_t kAlignment = 64;

struct AlignedDelete {
  void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t{kAlignment}); }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

AlignedBytes allocate(int64_t bytes) {
  return AlignedBytes(new (std::align_val_t{kAlignment}) std::byte[static_cast<std::size_t>(bytes)]);
}

// Rows of one task when matrices are converted or transposed.
constexpr int64_t kBlockRows = 32;

}  // namespace

struct WeightLoader::Storage {
  TensorArchive archive;
  std::deque<AlignedBytes> owned;

  std::byte* add(int64_t bytes) { return owned.emplace_back(allocate(bytes)).get(); }
};

WeightLoader::WeightLoader(const TensorArchive& archive, std::optional<DType> dtype, ThreadPool& pool)
    : pool_(pool), dtype_(dtype), storage_(std::make_shared<Storage>(Storage{archive, {}})) {}

void WeightLoader::choose_prefix(std::initializer_list<std::string_view> candidates, std::string_view probe) {
  prefix_ = *candidates.begin();
  for (const std::string_view candidate : candidates) {
    if (storage_->archive.find(fmt::format("{}{}", candidate, probe)) == nullptr) continue;
    prefix_ = candidate;
    return;
  }
}

void WeightLoader::count(const TensorView& tensor, DType type) {
  bytes_ += tensor.count() * dtype_bytes(type);
  parameters_ += tensor.count();
}

WeightView WeightLoader::matrix(std::string_view name, int64_t rows, int64_t cols) {
  return unprefixed_matrix(fmt::format("{}{}", prefix_, name), rows, cols);
}

WeightView WeightLoader::unprefixed_matrix(const std::string& name, int64_t rows, int64_t cols) {
  throw_if_interrupted();
  const TensorView& tensor = storage_->archive.at(name, {rows, cols});
  check_finite(tensor);
  const DType type = dtype_.value_or(tensor.dtype);
  count(tensor, type);
  if (type == tensor.dtype) return {tensor.data, type, rows, cols};
  return converted(tensor, rows, cols);
}

WeightView WeightLoader::converted(const TensorView& tensor, int64_t rows, int64_t cols) {
  const DType type = *dtype_;
  TensorView result = tensor;
  std::byte* target = storage_->add(rows * cols * dtype_bytes(type));
  pool_.parallel_for((rows + kBlockRows - 1) / kBlockRows, [&](int64_t block, int) {
    const int64_t first = block * kBlockRows * cols;
    const int64_t values = std::min(kBlockRows * cols, rows * cols - first);
    std::vector<float> widened(static_cast<std::size_t>(values));
    to_f32(tensor.data + first * dtype_bytes(tensor.dtype), tensor.dtype, widened.data(), values);
    from_f32(widened.data(), type, target + first * dtype_bytes(type), values);
  });
  result.dtype = type;
  result.data = target;
  result.bytes = rows * cols * dtype_bytes(type);
  result.name = fmt::format("{} (converted to {})", tensor.name, dtype_name(type));
  check_finite(result);  // f16 ends at 65504
  return {target, type, rows, cols};
}

WeightView WeightLoader::transposed(std::string_view name, int64_t inputs, int64_t outputs) {
  throw_if_interrupted();
  const TensorView& tensor = storage_->archive.at(fmt::format("{}{}", prefix_, name), {inputs, outputs});
  check_finite(tensor);
  const DType type = dtype_.value_or(tensor.dtype);
  count(tensor, type);
  std::byte* target = storage_->add(inputs * outputs * dtype_bytes(type));
  pool_.parallel_for((outputs + kBlockRows - 1) / kBlockRows, [&](int64_t block, int) {
    const int64_t first = block * kBlockRows;
    const int64_t rows = std::min(kBlockRows, outputs - first);
    std::vector<float> turned(static_cast<std::size_t>(rows * inputs));
    float column[kBlockRows];
    for (int64_t i = 0; i < inputs; ++i) {
      to_f32(tensor.data + (i * outputs + first) * dtype_bytes(tensor.dtype), tensor.dtype, column, rows);
      for (int64_t r = 0; r < rows; ++r) turned[static_cast<std::size_t>(r * inputs + i)] = column[r];
    }
    from_f32(turned.data(), type, target + first * inputs * dtype_bytes(type), rows * inputs);
  });
  return {target, type, outputs, inputs};
}

const float* WeightLoader::vector(std::string_view name, int64_t count) {
  const TensorView& tensor = storage_->archive.at(fmt::format("{}{}", prefix_, name), {count});
  check_finite(tensor);
  this->count(tensor, DType::kF32);
  auto* values = reinterpret_cast<float*>(storage_->add(count * static_cast<int64_t>(sizeof(float))));
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
  auto* values = reinterpret_cast<float*>(storage_->add(2 * width * static_cast<int64_t>(sizeof(float))));
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
