// Reading weights in the safetensors format: one file, or shards named by an index. Files are mapped, not
// copied. What a file claims is checked before it is believed: lengths, offsets, shapes, types and names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace kva {

// A tensor inside an archive, row-major. `data` is aligned to the element type, holds `bytes` bytes and lives
// as long as the archive (or any copy of it).
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  std::string file;  // where it stands, for errors

  int64_t count() const { return bytes / dtype_bytes(dtype); }
};

// All tensors of a model. Copies share the maps. Safe to read from several threads.
//
// Tensors of other types than F32, F16 and BF16 may be present (masks and position buffers are common); they
// take part in hash() and are refused only when asked for. A file whose header is not padded, as early
// writers left it, is read too: such tensors are copied to aligned memory when first asked for.
class TensorArchive {
 public:
  // model.safetensors, or the shards of model.safetensors.index.json. Throws InputError for every defect:
  // truncation, a header over the file or over 100 MB, a name given twice, a shape that overflows, a byte
  // range that is not shape × type or that overlaps, leaves a hole or passes the end, an index that names a
  // missing file, a missing tensor or a path outside the folder.
  static TensorArchive open_folder(const std::string& folder);
  static TensorArchive open_file(const std::string& path);
  // `bytes` must outlive the archive; `source` names them in errors.
  static TensorArchive from_memory(std::span<const std::byte> bytes, const std::string& source);

  // nullptr where there is no such tensor; throws InputError where its type is none of ours. The pointer is
  // good as long as the archive.
  const TensorView* find(std::string_view name) const;
  // As find(), and throws InputError where it is missing or its shape differs.
  const TensorView& at(std::string_view name, std::span<const int64_t> expected_shape) const;
  const TensorView& at(std::string_view name, std::initializer_list<int64_t> expected_shape) const {
    return at(name, std::span<const int64_t>(expected_shape.begin(), expected_shape.size()));
  }
  // Says that the tensor will not be read soon: memory that holds a mapped file's bytes is given back.
  void forget(const TensorView& tensor) const;
  // Sorted.
  std::vector<std::string> names() const;
  // Bytes of all tensors.
  int64_t total_bytes() const;
  // XXH3-128 over names, types, shapes and data in the order of names, "xxh3:<32 hex digits>"; the same for a
  // model however it is sharded. Reads everything once.
  std::string hash() const;

 private:
  struct State;
  explicit TensorArchive(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Throws InputError naming the file, the tensor and the first element that is NaN or infinite.
void check_finite(const TensorView& tensor);

}  // namespace kva
