#include "reports/provenance.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sched.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "build_info.h"
#include "kernels/cpu_features.h"
#include "runtime/backend/host_memory.h"

namespace kva {
namespace {

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

// The value after the first line of a /proc file that starts with `key`.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const auto colon = line.find(':');
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "unknown";
}

}  // namespace

std::string version_line() {
  return fmt::format("kvanalyze {} (commit {}, {}, {})", build_info::kVersion, build_info::kCommit,
                     build_info::kBuildType, build_info::kCompiler);
}

HostInfo host_info() {
  const HostMemory memory = host_memory();
  return {.cpu = proc_value("/proc/cpuinfo", "model name"),
          .cores = usable_cores(),
          .simd = simd_target_name(),
          .product_isa = product_isa_name(),
          .memory_bytes = memory.total_bytes,
          .available_bytes = memory.available_bytes};
}

nlohmann::ordered_json provenance_json(const RunStamp& stamp, int threads, uint64_t seed) {
  const HostInfo host = host_info();
  const auto elapsed = std::chrono::system_clock::now() - stamp.started;
  return {
      {"command", stamp.command},
      {"version", build_info::kVersion},
      {"commit", build_info::kCommit},
      {"build",
       {{"type", build_info::kBuildType},
        {"compiler", build_info::kCompiler},
        {"cuda", build_info::kCudaCompiler},
        {"faiss", build_info::kFaissVersion}}},
      {"host",
       {{"cpu", host.cpu},
        {"cores", host.cores},
        {"simd", host.simd},
        {"products", host.product_isa},
        {"memory_bytes", host.memory_bytes}}},
      {"device", stamp.device},
      {"threads", threads},
      {"seed", seed},
      {"started", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                              fmt::gmtime(std::chrono::system_clock::to_time_t(stamp.started)))},
      {"duration_s", std::chrono::duration<double>(elapsed).count()},
  };
}

nlohmann::ordered_json report_frame(const std::string& kind, const RunStamp& stamp, int threads,
                                    uint64_t seed, const std::string& recipe,
                                    const nlohmann::ordered_json& options) {
  nlohmann::ordered_json json;
  json["schema"] = "kvanalyze.report";
  json["schema_version"] = 1;
  json["kind"] = kind;
  json["provenance"] = provenance_json(stamp, threads, seed);
  json["provenance"]["recipe"] = recipe;
  json["provenance"]["options"] = options;
  return json;
}

}  // namespace kva
