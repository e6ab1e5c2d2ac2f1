// Runs scripts/fetch_model.py for runtime/model/model_folder.cc.
#pragma once

#include <string>
#include <vector>

namespace kva {

// Runs `arguments` (the first is the program, looked for on PATH; no shell) with stdin closed and stderr
// passed through, and returns its last line on stdout, empty where it wrote none. Throws InputError where the
// program cannot be started, or with that last line where it fails; Interrupted on Ctrl-C, after it ended the
// child.
std::string last_line_of(const std::vector<std::string>& arguments);

}  // namespace kva
