#include "reports/experiments/trials.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "compressors/compressor.h"
#include "reports/experiments/reference.h"
#include "reports/provenance.h"
#include "runtime/backend/host_memory.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/hash.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kIdDigits = 16;
constexpr std::size_t kMostTrials = 10000000;

std::string ids_hash(const Sample& sample) {
  RunningHash hash;
  for (const SampleTurn& turn : sample.turns) {
    const int64_t head[] = {static_cast<int64_t>(turn.ids.size()), turn.answered ? 1 : 0};
    hash.add(std::as_bytes(std::span(head)));
    hash.add(std::as_bytes(std::span(turn.ids)));
  }
  return hash.text();
}

// All that decides the numbers of a row, times aside.
std::string id_of(const Trial& trial, const Experiment& experiment, const RunModel& model) {
  const Sample& sample = *trial.sample;
  const Json identity = {{"program", version_line()},
                         {"model", model.identity.tensor_hash},
                         {"name", model.options.model},
                         {"weights", model.options.weights},
                         {"experiment", experiment.name},
                         {"mode", experiment.mode},
                         {"strategy", experiment.strategies[trial.strategy].written},
                         {"recipe", experiment.strategies[trial.strategy].recipe.text()},
                         {"set", sample.set},
                         {"sample", sample.name},
                         {"prompt", ids_hash(sample)},
                         {"key", sample.key},
                         {"context_length", sample.context_length},
                         {"repeat", trial.repeat},
                         {"seed", trial.seed},
                         {"max_gen_tokens", experiment.max_gen_tokens},
                         {"temperature", experiment.sampler.temperature},
                         {"top_k", experiment.sampler.top_k},
                         {"top_p", experiment.sampler.top_p},
                         {"device", model.device.kind()},
                         {"batch_size", experiment.batch_size},
                         {"page_size", experiment.page_tokens},
                         {"chunk", experiment.chunk_tokens},
                         {"ignore_eos", experiment.ignore_eos},
                         {"quality", experiment.quality}};
  const std::string hash = text_hash(identity.dump());
  return hash.substr(hash.find(':') + 1, kIdDigits);
}

bool same_options(const ModelOptions& a, const ModelOptions& b) {
  return a.model == b.model && a.cache_dir == b.cache_dir && a.weights == b.weights && a.offline == b.offline;
}

class Planner {
 public:
  Planner(RunPlan& plan, const Shard& shard) : plan_(plan), shard_(shard) {}

  void add(std::size_t index) {
    const Experiment& experiment = plan_.file.experiments[index];
    for (const ModelChoice& choice : experiment.models) {
      const std::size_t model = open(experiment, choice);
      for (const uint64_t seed : experiment.seeds) {
        throw_if_interrupted();
        for (Sample& sample : load_samples(experiment, plan_.models[model].found, seed)) {
          check_memory(experiment, choice, plan_.models[model], sample);
          const auto shared = std::make_shared<const Sample>(std::move(sample));
          for (int64_t repeat = 0; repeat < experiment.repeats; ++repeat)
            add_group(
                {.experiment = index, .model = model, .sample = shared, .repeat = repeat, .seed = seed});
        }
      }
    }
  }

 private:
  // As a trial will make them, on an empty cache: parameters that do not suit the model are told now.
  void check_strategies(const Experiment& experiment, const ModelChoice& choice, const ModelConfig& config,
                        const RunDevice& device) const {
    ThreadPool pool(1);
    // Which token is of which class is the tokenizer's; that there is one is enough here.
    const auto classes = std::make_shared<const TokenClasses>(std::vector<TokenClass>());
    for (const Strategy& strategy : experiment.strategies) {
      try {
        KvCacheOptions options = Compressor::cache_options(
            strategy.recipe,
            cache_options_for(config, experiment.page_tokens, DType::kF16, strategy.recipe.key_basis()));
        if (device.ops) options.backend = make_device_backend(device.ops);
        KvCache cache(options, pool);
        const Compressor compressor(strategy.recipe, cache, pool, 0, classes);
      } catch (const InputError& error) {
        fail_at(strategy.place, fmt::format("{}: {}", choice.name, error.what()));
      }
    }
  }

  // The cache of the trial at its fullest in the widest type, and Baseline's logits.
  static void check_memory(const Experiment& experiment, const ModelChoice& choice, const RunModel& model,
                           const Sample& sample) {
    const ModelConfig& config = model.found.config;
    const int64_t tokens = sample.prompt_tokens() + sample.answers() * experiment.max_gen_tokens;
    const int64_t logits =
        sample.answers() * experiment.max_gen_tokens * config.vocab * int64_t{sizeof(float)};
    const int64_t cache =
        experiment.batch_size * tokens * config.kv_bytes_per_token(DType::kF32, DType::kF32);
    const auto check = [&](int64_t needed, int64_t available, const char* what) {
      if (needed > available)
        fail_at(choice.place,
                fmt::format("{} of {}: {} tokens in {} copies need about {} MiB of {}, {} MiB are "
                            "free; use fewer or shorter ones",
                            sample.name, sample.set, tokens, experiment.batch_size, needed >> 20, what,
                            available >> 20));
    };
    const bool on_gpu = model.device.ops != nullptr;
    if (on_gpu) check(cache, model.device.ops->memory().free_bytes, "the GPU's memory");
    check((on_gpu ? 0 : cache) + (experiment.quality ? std::min(logits, Reference::kMaxBytes) : 0),
          host_memory().available_bytes, "memory");
  }

  static RunModel opened(const ModelOptions& options, const ModelChoice& choice) {
    try {
      FoundModel found = open_model(options);
      ModelIdentity identity = identify(found.folder, TensorArchive::open_folder(found.folder.path));
      return {options, std::move(found), std::move(identity), {}};
    } catch (const InputError& error) {
      fail_at(choice.place, error.what());
    }
  }

  // The model on the device that suits all strategies, which are to be compared.
  std::size_t open(const Experiment& experiment, const ModelChoice& choice) {
    const ModelOptions options{.model = choice.name,
                               .cache_dir = experiment.cache_dir,
                               .offline = experiment.offline,
                               .weights = experiment.weights};
    auto& models = plan_.models;
    const auto known = std::find_if(models.begin(), models.end(), [&](const RunModel& model) {
      return same_options(model.options, options);
    });
    std::optional<RunModel> added;
    if (known == models.end()) added = opened(options, choice);
    const ModelConfig& config = (added ? *added : *known).found.config;
    check_strategies(experiment, choice, config, {});
    const RunDevice device = device_for(experiment, choice, config);
    const auto there = std::find_if(models.begin(), models.end(), [&](const RunModel& model) {
      return same_options(model.options, options) && model.device.kind() == device.kind();
    });
    if (there != models.end()) return static_cast<std::size_t>(there - models.begin());
    if (!added) added = opened(options, choice);
    added->device = device;
    models.push_back(std::move(*added));
    return models.size() - 1;
  }

  RunDevice device_for(const Experiment& experiment, const ModelChoice& choice, const ModelConfig& config) {
    const DeviceChoice asked{experiment.device, [this](std::string* why_not) { return cuda(why_not); }};
    const Say say = [&](const std::string& line) {
      plan_.notes.push_back(fmt::format("{}, {}: {}", experiment.name, choice.name, line));
    };
    const auto needs = [&](const RunDevice& chosen) { check_strategies(experiment, choice, config, chosen); };
    RunDevice device;
    try {
      device = open_device(asked, say);
    } catch (const InputError& error) {
      fail_at(experiment.place, error.what());
    }
    return settled(std::move(device), asked, needs, say);
  }

  // Opened once.
  std::shared_ptr<DeviceOps> cuda(std::string* why_not) {
    if (!cuda_asked_) cuda_ = open_cuda_device(&no_cuda_);
    cuda_asked_ = true;
    *why_not = no_cuda_;
    return cuda_;
  }

  void add_group(Trial trial) {
    trial.group = groups_++;
    if (trial.group % shard_.count != shard_.index - 1) return;
    const Experiment& experiment = plan_.file.experiments[trial.experiment];
    for (; trial.strategy < experiment.strategies.size(); ++trial.strategy) {
      trial.id = id_of(trial, experiment, plan_.models[trial.model]);
      plan_.trials.push_back(trial);
    }
    if (plan_.trials.size() > kMostTrials)
      fail_at(experiment.place, fmt::format("expected at most {} trials, found more", kMostTrials));
  }

  RunPlan& plan_;
  const Shard& shard_;
  int64_t groups_ = 0;
  bool cuda_asked_ = false;
  std::shared_ptr<DeviceOps> cuda_;
  std::string no_cuda_;
};

}  // namespace

Shard parse_shard(const std::string& text) {
  Shard shard;
  const std::size_t slash = text.find('/');
  const auto read = [&](std::size_t first, std::size_t last, int64_t& value) {
    const auto [end, error] = std::from_chars(text.data() + first, text.data() + last, value);
    return error == std::errc() && end == text.data() + last;
  };
  if (slash == std::string::npos || !read(0, slash, shard.index) ||
      !read(slash + 1, text.size(), shard.count) || shard.index < 1 || shard.count > 100000 ||
      shard.index > shard.count)
    throw InputError(fmt::format("--shard: expected i/n with i from 1 to n, found {:.40}", text));
  return shard;
}

RunPlan plan_run(ExperimentFile file, const Shard& shard) {
  RunPlan plan{.file = std::move(file), .models = {}, .trials = {}};
  Planner planner(plan, shard);
  for (std::size_t i = 0; i < plan.file.experiments.size(); ++i) planner.add(i);
  std::stable_sort(plan.trials.begin(), plan.trials.end(),
                   [](const Trial& a, const Trial& b) { return a.model < b.model; });
  return plan;
}

}  // namespace kva
