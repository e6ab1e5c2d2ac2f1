// A model's weights in one form for all families, and how families take them from a checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"
#include "runtime/io/safetensors.h"

namespace kva {

struct ModelConfig;

// How matrices are held and multiplied: by default in the type that they are stored in.
struct WeightForm {
  WeightForm() = default;
  WeightForm(DType type_) : type(type_) {}  // not explicit: a type is a form
  std::optional<DType> type;
  bool int8 = false;  // 8-bit codes, a scale for each group of inputs (kernels/weight_view.h); no type then
};

// As --weights spells them: stored, f32, f16, bf16, int8. Throws InputError for any other.
WeightForm weight_form(std::string_view name);

struct NormWeights {
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;    // [width], null for RMS norms
};

struct Projection {
  WeightView weight;            // [outputs, inputs]
  const float* bias = nullptr;  // [outputs] or null
};

struct LayerWeights {
  NormWeights attention_norm;  // [hidden]
  Projection q;                // [heads * head_dim, hidden]
  Projection k;                // [kv_heads * head_dim, hidden]
  Projection v;                // as k
  Projection output;           // [hidden, heads * head_dim]
  NormWeights ffn_norm;        // [hidden]
  Projection gate;             // [ffn, hidden]; only where the feed-forward is gated
  Projection up;               // [ffn, hidden]
  Projection down;             // [hidden, ffn]
};

// Views into `owner`.
struct ModelWeights {
  WeightView token_embedding;     // [vocab, embedding]
  WeightView position_embedding;  // [max_positions + offset, hidden], learned positions only
  Projection embedding_in;        // [hidden, embedding] where those widths differ
  Projection embedding_out;       // [embedding, hidden]
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  WeightView head;  // [vocab, embedding]; the token embedding where tied

  int64_t bytes = 0;       // of all of the above, a tied embedding once
  int64_t parameters = 0;  // counted the same way
  std::shared_ptr<const void> owner;
};

// Takes tensors out of an archive into memory of the model's own (weight_memory.h): checks type, shape and
// that every value is finite, and converts where asked. Throws InputError naming the file and the tensor.
class WeightLoader {
 public:
  // The form of matrices. Vectors (biases, norms) become f32.
  WeightLoader(const TensorArchive& archive, const WeightForm& form, ThreadPool& pool);

  // Checkpoints saved from a bare model and from one with a head differ in the prefix of their names. Of the
  // candidates, takes the first with which `probe` exists (the first of all where none does, so that the
  // error names a likely tensor); the other calls put it before their names.
  void choose_prefix(std::initializer_list<std::string_view> candidates, std::string_view probe);

  WeightView matrix(std::string_view name, int64_t rows, int64_t cols);
  // Stored as [inputs, outputs]; given as [outputs, inputs].
  WeightView transposed(std::string_view name, int64_t inputs, int64_t outputs);
  const float* vector(std::string_view name, int64_t count);

  // The output projection: of the checkpoint, or the token embedding where the two are tied.
  WeightView head(const ModelConfig& config, const WeightView& token_embedding);

  Projection projection(const std::string& name, int64_t outputs, int64_t inputs, bool bias);
  NormWeights norm(const std::string& name, int64_t width, bool bias);

  // A norm that has no weights of its own: ones and zeros.
  NormWeights plain_norm(int64_t width);

  // Hands over what was taken: sizes and the owner.
  void finish(ModelWeights& weights);

 private:
  struct Storage;
  // Fills `values` with rows [first, first + values.rows) of a matrix. Thread-safe.
  using ReadRows = std::function<void(int64_t first, MatView<float> values)>;
  // As matrix() without the prefix.
  WeightView unprefixed_matrix(const std::string& name, int64_t rows, int64_t cols);
  WeightView copied(const TensorView& tensor, int64_t rows, int64_t cols);
  WeightView made(const TensorView& tensor, int64_t rows, int64_t cols, const ReadRows& read);
  void count(int64_t parameters, int64_t bytes);

  ThreadPool& pool_;
  WeightForm form_;
  std::string prefix_;
  std::shared_ptr<Storage> storage_;
  int64_t bytes_ = 0;
  int64_t parameters_ = 0;
};

}  // namespace kva
