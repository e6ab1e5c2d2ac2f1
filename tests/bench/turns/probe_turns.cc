// Limits of the machine as operations: what ours and the peers' are held against (tests/bench/probes.h).
#include <cstring>
#include <vector>

#include "runtime/error.h"
#include "tests/bench/probes.h"
#include "tests/bench/turns/turn.h"

namespace kva {
namespace {

// read bytes=B threads=T
class ReadTurn : public Turn {
 public:
  explicit ReadTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))), probe_(s.number("bytes")) {
    facts["bytes"] = probe_.bytes();
    probe_.seconds(pool_);
  }
  double seconds() override { return probe_.seconds(pool_); }

 private:
  ThreadPool pool_;
  ReadProbe probe_;
};

// copy bytes=B threads=T: memcpy of B bytes, each thread its part. Counted read and written.
class CopyTurn : public Turn {
 public:
  explicit CopyTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        from_(static_cast<std::size_t>(s.number("bytes")), 1),
        to_(from_.size(), 2) {
    facts["bytes"] = 2.0 * static_cast<double>(from_.size());
  }
  double seconds() override {
    const std::size_t parts = static_cast<std::size_t>(pool_.threads());
    return seconds_of([&] {
      pool_.parallel_for(pool_.threads(), [&](int64_t part, int) {
        const std::size_t begin = from_.size() * static_cast<std::size_t>(part) / parts;
        const std::size_t end = from_.size() * (static_cast<std::size_t>(part) + 1) / parts;
        std::memcpy(to_.data() + begin, from_.data() + begin, end - begin);
      });
    });
  }

 private:
  ThreadPool pool_;
  std::vector<char> from_, to_;
};

// product type=bf16|f32 threads=T
class ProductTurn : public Turn {
 public:
  explicit ProductTurn(const TurnSettings& s)
      : pool_(static_cast<int>(s.number("threads"))),
        probe_(parse_dtype(s.text("type")).value_or(DType::kF32), pool_) {
    facts["flops"] = probe_.flops();
    probe_.seconds();
  }
  double seconds() override { return probe_.seconds(); }

 private:
  ThreadPool pool_;
  ProductProbe probe_;
};

// popcount: one thread. A turn is long enough for a clock.
class PopcountTurn : public Turn {
 public:
  PopcountTurn() { facts["words"] = probe_.words() * kTurns; }
  double seconds() override {
    double sum = 0.0;
    for (int turn = 0; turn < kTurns; ++turn) sum += probe_.seconds();
    return sum;
  }

 private:
  static constexpr int kTurns = 64;
  PopcountProbe probe_;
};

}  // namespace

std::unique_ptr<Turn> make_probe_turn(const std::string& operation, const TurnSettings& settings) {
  if (operation == "read") return std::make_unique<ReadTurn>(settings);
  if (operation == "copy") return std::make_unique<CopyTurn>(settings);
  if (operation == "product") return std::make_unique<ProductTurn>(settings);
  if (operation == "popcount") return std::make_unique<PopcountTurn>();
  return nullptr;
}

}  // namespace kva
