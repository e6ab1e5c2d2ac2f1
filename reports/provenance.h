// Where a report comes from: program, build and machine. Everything a reader needs to make it again.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kva {

// "kvanalyze 0.1.0 (commit 1234abcd5678, Release, GNU 12.2.0)".
std::string version_line();

struct HostInfo {
  std::string cpu;          // as /proc/cpuinfo names it
  int cores = 0;            // that this process may use
  std::string simd;         // the instruction set that the SIMD kernels chose
  std::string product_isa;  // the instruction set that matrix products chose
  int64_t memory_bytes = 0;
  int64_t available_bytes = 0;
};
HostInfo host_info();

struct RunStamp {
  std::string command;  // as typed
  std::chrono::system_clock::time_point started = std::chrono::system_clock::now();
  std::string device = "cpu";  // what decoded, or analysed a capture, as RunDevice::name() has it
};

// The "provenance" object of report.json, without recipe and options.
nlohmann::ordered_json provenance_json(const RunStamp& stamp, int threads, uint64_t seed);

// What every report begins with: schema, version, kind, provenance. `recipe` and `options` are as the run
// spells them.
nlohmann::ordered_json report_frame(const std::string& kind, const RunStamp& stamp, int threads,
                                    uint64_t seed, const std::string& recipe,
                                    const nlohmann::ordered_json& options);

}  // namespace kva
