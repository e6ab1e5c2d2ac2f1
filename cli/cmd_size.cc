// `kvanalyze size`: how many bytes a KV cache takes, from the model's config alone.

#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/count_option.h"
#include "cli/options.h"
#include "runtime/error.h"
#include "runtime/model/model_config.h"
#include "runtime/model/model_folder.h"

namespace kva::cli {
namespace {

struct SizeOptions {
  CaptureOptions model;
  int64_t context = 0;
  int64_t batch = 1;
  std::string kv_dtype = "f16";
  bool json = false;
};

std::string mebibytes(double bytes) {
  return bytes >= 1073741824.0 ? fmt::format("{:.2f} GiB", bytes / 1073741824.0)
                               : fmt::format("{:.1f} MiB", bytes / 1048576.0);
}

void run(const SizeOptions& options) {
  const DType type = dtype_option("--kv-dtype", options.kv_dtype);
  const std::string folder = find_model(options.model.model, {.cache_dir = options.model.cache_dir,
                                                              .allow_fetch = !options.model.offline})
                                 .path;
  const ModelConfig config = load_config(folder);
  const int64_t context = options.context > 0 ? options.context : config.max_positions;
  if (context > config.max_positions)
    throw InputError(fmt::format("--context: {} takes at most {} positions, found {}", options.model.model,
                                 config.max_positions, context));
  const int64_t per_token = config.kv_bytes_per_token(type, type);
  const double total =
      static_cast<double>(per_token) * static_cast<double>(context) * static_cast<double>(options.batch);
  if (options.json) {
    fmt::print(
        "{{\"model\": \"{}\", \"layers\": {}, \"kv_heads\": {}, \"head_dim\": {}, \"kv_dtype\": \"{}\", "
        "\"bytes_per_token\": {}, \"context\": {}, \"batch\": {}, \"bytes\": {:.0f}}}\n",
        config.architecture, config.layers, config.kv_heads, config.head_dim, dtype_name(type), per_token,
        context, options.batch, total);
    return;
  }
  fmt::print("{}: {} layers x {} KV heads x {} head_dim, K and V in {}\n", options.model.model, config.layers,
             config.kv_heads, config.head_dim, dtype_name(type));
  fmt::print("  {} bytes a token x {} tokens x batch {} = {:.0f} bytes ({})\n", per_token, context,
             options.batch, total, mebibytes(total));
  if (config.heads != config.kv_heads)
    fmt::print("  grouped queries: {} query heads share {} KV heads, {:.1f}x less than one KV head each\n",
               config.heads, config.kv_heads, static_cast<double>(config.heads) / config.kv_heads);
}

}  // namespace

void add_size(CLI::App& app) {
  auto* command = app.add_subcommand("size", "Bytes of a KV cache, from the model's config alone");
  auto options = std::make_shared<SizeOptions>();
  add_model_options(*command, options->model)->required();
  add_count(*command, "--context", options->context, 0, int64_t{1} << 40,
            "Tokens of context (0: all that the model takes)");
  add_count(*command, "--batch", options->batch, 1, 1 << 20, "Sequences");
  command->add_option("--kv-dtype", options->kv_dtype, "Type of cached keys and values")
      ->type_name("f16|bf16|f32")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([options] { run(*options); });
}

}  // namespace kva::cli
