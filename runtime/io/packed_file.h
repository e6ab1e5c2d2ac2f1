// Files of numbers that are kept as they are or as one zstd frame (RFC 8878), which the zstd program reads
// too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace kva {

inline constexpr int kMostZstdLevel = 19;  // beyond it windows grow past 8 MiB

struct PackedFileFacts {
  int64_t bytes = 0;      // on disk
  int64_t raw_bytes = 0;  // of what is in it
  std::string hash;       // of the bytes on disk, as runtime/io/hash.h prints it
};

class PackedFileWriter {
 public:
  // level: 1 to kMostZstdLevel, 0: as it is. Throws InputError as AtomicFile does.
  PackedFileWriter(const std::string& path, int level);
  ~PackedFileWriter();
  PackedFileWriter(PackedFileWriter&&) noexcept;

  void write(std::span<const std::byte> bytes);
  PackedFileFacts finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Bytes that come in order.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills all of `into`. Throws InputError where less is left.
  virtual void read(std::span<std::byte> into) = 0;
  virtual bool at_end() = 0;
};

// Reads such a file, which a stranger may have written. Memory does not depend on what it claims.
class PackedFileReader : public ByteSource {
 public:
  // Maps the file and compares size and hash. Throws InputError where they differ.
  PackedFileReader(const std::string& path, const PackedFileFacts& facts, bool is_zstd);
  ~PackedFileReader() override;

  void read(std::span<std::byte> into) override;
  bool at_end() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kva
