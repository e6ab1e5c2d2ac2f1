#include "reports/run_text.h"

#include "reports/prompts.h"
#include "runtime/io/file.h"

namespace kva {

std::string text_or_general(const std::string& path) {
  return path.empty() ? general_text() : read_utf8_file(path);
}

}  // namespace kva
