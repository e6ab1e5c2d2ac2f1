#include "runtime/io/packed_file.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"

namespace kva {
namespace {

constexpr int kMostWindowLog = 23;  // 8 MiB: more than kMostZstdLevel writes

struct FreeCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
struct FreeDecompressor {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

struct PackedFileWriter::State {
  State(const std::string& path, int level) : file(path) {
    if (level == 0) return;
    context.reset(ZSTD_createCCtx());
    KVA_CHECK(context && level > 0 && level <= kMostZstdLevel, "zstd takes this level");
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, level);
    out.resize(ZSTD_CStreamOutSize());
  }

  void put(std::span<const std::byte> bytes) {
    file.write(bytes.data(), bytes.size());
    hash.add(bytes);
  }

  void compress(std::span<const std::byte> bytes, ZSTD_EndDirective directive) {
    ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
    for (std::size_t left = 1; left > 0 || input.pos < input.size;) {
      ZSTD_outBuffer output{out.data(), out.size(), 0};
      left = ZSTD_compressStream2(context.get(), &output, &input, directive);
      KVA_CHECK(ZSTD_isError(left) == 0, "zstd compresses any bytes");
      put({out.data(), output.pos});
      if (directive == ZSTD_e_continue && input.pos == input.size) return;
    }
  }

  AtomicFile file;
  RunningHash hash;
  int64_t raw_bytes = 0;
  std::unique_ptr<ZSTD_CCtx, FreeCompressor> context;
  std::vector<std::byte> out;
};

PackedFileWriter::PackedFileWriter(const std::string& path, int level)
    : state_(std::make_unique<State>(path, level)) {}
PackedFileWriter::~PackedFileWriter() = default;
PackedFileWriter::PackedFileWriter(PackedFileWriter&&) noexcept = default;

void PackedFileWriter::write(std::span<const std::byte> bytes) {
  state_->raw_bytes += static_cast<int64_t>(bytes.size());
  if (state_->context)
    state_->compress(bytes, ZSTD_e_continue);
  else
    state_->put(bytes);
}

PackedFileFacts PackedFileWriter::finish() {
  if (state_->context) state_->compress({}, ZSTD_e_end);
  state_->file.commit();
  return {state_->file.size(), state_->raw_bytes, state_->hash.text()};
}

struct PackedFileReader::State {
  explicit State(const std::string& path) : file(path) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: {}", file.path(), what));
  }

  // The next decompressed bytes into `out`; none where the frame has ended.
  void refill() {
    out_first = out_end = 0;
    while (out_end == 0 && !ended) {
      ZSTD_outBuffer output{out.data(), out.size(), 0};
      const std::size_t before = input.pos;
      const std::size_t left = ZSTD_decompressStream(context.get(), &output, &input);
      if (ZSTD_isError(left) != 0)
        fail(fmt::format("expected a zstd frame, found another ({})", ZSTD_getErrorName(left)));
      out_end = output.pos;
      ended = left == 0;
      if (ended && input.pos < input.size) fail("expected one zstd frame, found bytes behind it");
      if (!ended && output.pos == 0 && input.pos == before) fail("the zstd frame is truncated");
    }
  }

  MappedFile file;
  std::unique_ptr<ZSTD_DCtx, FreeDecompressor> context;
  ZSTD_inBuffer input{};
  std::vector<std::byte> out;
  std::size_t out_first = 0, out_end = 0;
  bool ended = false;
  std::size_t plain_at = 0;
};

PackedFileReader::PackedFileReader(const std::string& path, const PackedFileFacts& facts, bool is_zstd)
    : state_(std::make_unique<State>(path)) {
  State& state = *state_;
  const auto bytes = state.file.bytes();
  if (static_cast<int64_t>(bytes.size()) != facts.bytes)
    state.fail(fmt::format("expected {} bytes, found {}; the file is {}", facts.bytes, bytes.size(),
                           static_cast<int64_t>(bytes.size()) < facts.bytes ? "truncated" : "too long"));
  if (const std::string hash = bytes_hash(bytes); hash != facts.hash)
    state.fail(fmt::format("checksum: expected {}, found {}; the file is damaged", facts.hash, hash));
  if (!is_zstd) return;
  state.context.reset(ZSTD_createDCtx());
  KVA_CHECK(state.context, "memory for a zstd context");
  ZSTD_DCtx_setParameter(state.context.get(), ZSTD_d_windowLogMax, kMostWindowLog);
  state.input = {bytes.data(), bytes.size(), 0};
  state.out.resize(ZSTD_DStreamOutSize());
}

PackedFileReader::~PackedFileReader() = default;

void PackedFileReader::read(std::span<std::byte> into) {
  State& state = *state_;
  const auto short_by = [&](std::size_t count) {
    state.fail(
        fmt::format("expected {} more bytes, found its end; the files of this folder disagree", count));
  };
  if (!state.context) {
    const auto left = state.file.bytes().subspan(state.plain_at);
    if (left.size() < into.size()) short_by(into.size());
    if (!into.empty()) std::memcpy(into.data(), left.data(), into.size());
    state.plain_at += into.size();
    return;
  }
  while (!into.empty()) {
    if (state.out_first == state.out_end) state.refill();
    if (state.out_first == state.out_end) short_by(into.size());
    const std::size_t count = std::min(into.size(), state.out_end - state.out_first);
    std::memcpy(into.data(), state.out.data() + state.out_first, count);
    state.out_first += count;
    into = into.subspan(count);
  }
}

bool PackedFileReader::at_end() {
  State& state = *state_;
  if (!state.context) return state.plain_at == state.file.bytes().size();
  if (state.out_first == state.out_end) state.refill();
  return state.out_first == state.out_end;
}

}  // namespace kva
