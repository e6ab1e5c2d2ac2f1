// How one side (K or V) of a page is stored, and how attention reads it as it is.
//
// A codec is immutable and shared by all its pages; a page's payload is a run of bytes(tokens, head_dim)
// bytes that the page store owns. Encoding, decoding and reading are thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/dtype.h"
#include "kernels/views.h"

namespace kva {

class SideCodec {
 public:
  virtual ~SideCodec() = default;

  // As a recipe spells it: "dense(f16)".
  virtual std::string name() const = 0;

  // Exact payload size of a page of `tokens` tokens.
  virtual int64_t bytes(int64_t tokens, int64_t head_dim) const = 0;

  // Writes rows [n, head_dim] as tokens [first_token, first_token + n) of a page with room for page_tokens.
  virtual void encode(MatView<const float> rows, int64_t first_token, int64_t page_tokens,
                      std::byte* payload) const = 0;

  // Reads tokens [first_token, first_token + rows.rows) back.
  virtual void decode(const std::byte* payload, int64_t first_token, int64_t page_tokens,
                      MatView<float> rows) const = 0;

  // scores(q, t) = queries row q · token t, for t in [0, scores.cols); unscaled.
  virtual void scores(MatView<const float> queries, const std::byte* payload, int64_t page_tokens,
                      MatView<float> scores) const = 0;

  // out row q += sum over t of weights(q, t) * token t, for t in [0, weights.cols).
  virtual void accumulate(MatView<const float> weights, const std::byte* payload, int64_t page_tokens,
                          MatView<float> out) const = 0;
};

// Values kept as they are, rounded to `type`.
std::shared_ptr<const SideCodec> make_dense_codec(DType type);

}  // namespace kva
