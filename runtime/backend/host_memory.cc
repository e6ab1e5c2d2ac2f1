#include "runtime/backend/host_memory.h"

#include <cstdio>

namespace kva {

HostMemory host_memory() {
  HostMemory memory{0, INT64_MAX};
  std::FILE* file = std::fopen("/proc/meminfo", "r");
  if (file == nullptr) return memory;
  char line[256];
  long long kibibytes = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "MemTotal: %lld kB", &kibibytes) == 1) memory.total_bytes = kibibytes * 1024;
    if (std::sscanf(line, "MemAvailable: %lld kB", &kibibytes) == 1)
      memory.available_bytes = kibibytes * 1024;
  }
  std::fclose(file);
  return memory;
}

}  // namespace kva
