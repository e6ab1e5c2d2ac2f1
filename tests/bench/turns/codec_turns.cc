// Encoding pages and reading them back, beside nothing but the copy of as many bytes (probe_turns.cc).
#include <memory>
#include <vector>

#include "compressors/codecs/quant_codec.h"
#include "runtime/error.h"
#include "tests/bench/probes.h"
#include "tests/bench/turns/turn.h"
#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

constexpr int64_t kPageTokens = 64;
constexpr int64_t kWidth = 64;
constexpr int64_t kPages = 1024;
constexpr int64_t kPageNumbers = kPageTokens * kWidth;

// encode|read_back bits=B threads=T: 1,024 page sides of 64 x 64 numbers, f32 on one side, the payload on the
// other. Bytes are those read and written.
class PagesTurn : public Turn {
 public:
  PagesTurn(bool encode, const TurnSettings& s)
      : encode_(encode),
        pool_(static_cast<int>(s.number("threads"))),
        codec_(make_quant_codec({.bits = static_cast<int>(s.number("bits"))})),
        bytes_(codec_->bytes(kPageTokens, kWidth)),
        numbers_(normal_numbers(kPages * kPageNumbers, 1)),
        payloads_(static_cast<std::size_t>(kPages * bytes_)) {
    const auto scratch = static_cast<std::size_t>(codec_->decode_scratch(kPageTokens, kWidth));
    scratch_.assign(static_cast<std::size_t>(pool_.threads()), std::vector<float>(scratch));
    facts["bytes"] = static_cast<double>(kPages * (bytes_ + kPageNumbers * 4));
    run(true);
  }
  double seconds() override {
    return seconds_of([&] { run(encode_); });
  }

 private:
  void run(bool encode) {
    pool_.parallel_for(kPages, [&](int64_t i, int worker) {
      const MatView<float> page(numbers_.data() + i * kPageNumbers, kPageTokens, kWidth);
      std::byte* payload = payloads_.data() + i * bytes_;
      if (encode)
        codec_->encode(page, {}, payload);
      else
        codec_->decode({.payload = payload}, scratch_[static_cast<std::size_t>(worker)].data(), page);
    });
  }

  bool encode_;
  ThreadPool pool_;
  std::shared_ptr<const SideCodec> codec_;
  int64_t bytes_;
  std::vector<float> numbers_;
  std::vector<std::byte> payloads_;
  std::vector<std::vector<float>> scratch_;  // of each worker
};

}  // namespace

std::unique_ptr<Turn> make_codec_turn(const std::string& operation, const TurnSettings& settings) {
  if (operation != "encode" && operation != "read_back") return nullptr;
  return std::make_unique<PagesTurn>(operation == "encode", settings);
}

}  // namespace kva
