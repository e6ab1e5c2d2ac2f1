// A small model with a text, and what evaluations of it need.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "reports/evaluation.h"

namespace kva {

inline std::vector<int32_t> text_of(int64_t tokens, int64_t vocab) {
  std::vector<int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>((i * i + 3 * i) % static_cast<std::size_t>(vocab));
  return ids;
}

struct Session {
  explicit Session(int threads, std::shared_ptr<DeviceOps> device = nullptr)
      : pool(threads),
        decoder(Decoder::load(KVA_FIXTURES "/models/llama-f16",
                              {.weights = DType::kF32, .device = std::move(device)}, pool)) {
    ids = text_of(200, decoder.config().vocab);
    windows = plan_windows(200, options, "text");
  }
  Evaluation evaluate(const std::vector<std::string>& texts) {
    return kva::evaluate(ids, windows, recipes(texts), options, setup(), progress);
  }
  static std::vector<Recipe> recipes(const std::vector<std::string>& texts) {
    std::vector<Recipe> parsed;
    parsed.reserve(texts.size());
    for (const std::string& text : texts) parsed.push_back(Recipe::parse(text));
    return parsed;
  }
  CacheSetup setup() { return {decoder, calibration, 8, 0, pool}; }

  ThreadPool pool;
  Progress progress{Progress::Mode::kQuiet};
  Decoder decoder;
  WindowOptions options = {.context = 40, .tokens = 50, .chunk = 8};
  Calibration calibration{decoder, text_of(40, 96), 40, 8, pool, progress};
  std::vector<int32_t> ids;
  std::vector<Window> windows;
};

}  // namespace kva
