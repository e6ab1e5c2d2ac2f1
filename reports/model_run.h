// The model of a run, in two steps: finding it with its tokenizer is quick, so that mistakes in the input are
// told before any weight is read.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "kernels/parallel.h"
#include "reports/progress.h"
#include "reports/run_device.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/tokenizer.h"

namespace kva {

struct ModelOptions {
  std::string model;               // folder, alias or hub id
  std::string cache_dir;           // a Hugging Face cache to look in; empty: the usual places
  bool offline = false;            // never fetch a model
  std::string weights = "stored";  // as weight_form() knows them
  DeviceChoice device;
};

struct FoundModel {
  ModelFolder folder;
  ModelConfig config;
  Tokenizer tokenizer;  // checked against the model's vocabulary
};

struct LoadedModel {
  Decoder decoder;
  ModelIdentity identity;
};

// Throws InputError where the model cannot be had or its files are damaged.
FoundModel open_model(const ModelOptions& options);

// Reads the weights onto the device; the pool outlives the decoder. Says in verbose mode which model it is.
LoadedModel load_model(const FoundModel& found, const ModelOptions& options, const RunDevice& device,
                       ThreadPool& pool, Progress& progress);

// The "model" object of a report. `kv_bytes_per_token` is that of the run's dense cache.
nlohmann::ordered_json model_json(const FoundModel& found, const LoadedModel& loaded,
                                  int64_t kv_bytes_per_token);

}  // namespace kva
