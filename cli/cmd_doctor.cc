// `kvanalyze doctor`: does this machine have what kvanalyze needs, and does it compute what it should?

#include <fmt/color.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/options.h"
#include "kernels/device.h"
#include "reports/gnuplot.h"
#include "reports/plotly.h"
#include "reports/provenance.h"
#include "reports/self_check.h"
#include "runtime/error.h"
#include "runtime/model/model_folder.h"

namespace kva::cli {
namespace {

class Checklist {
 public:
  void good(const std::string& subject, const std::string& finding) {
    print("ok", fmt::color::green, subject, finding);
  }
  void note(const std::string& subject, const std::string& finding) {
    print("note", fmt::color::orange, subject, finding);
  }
  void bad(const std::string& subject, const std::string& finding) {
    print("FAIL", fmt::color::red, subject, finding);
    ++failures_;
  }
  int failures() const { return failures_; }

 private:
  void print(const char* mark, fmt::color color, const std::string& subject, const std::string& finding) {
    if (color_) {
      fmt::print(fmt::fg(color), "{:>5}", mark);
    } else {
      fmt::print("{:>5}", mark);
    }
    fmt::print("  {:<12} {}\n", subject, finding);
  }

  bool color_ = isatty(STDOUT_FILENO) && !std::getenv("NO_COLOR");
  int failures_ = 0;
};

void check_machine(Checklist& list) {
  const HostInfo host = host_info();
  list.good("build", version_line());
  list.good("processor", fmt::format("{}, {} cores", host.cpu, host.cores));
  list.good("SIMD", fmt::format("{}; matrix products: {}", host.simd, host.product_isa));
  list.good("memory",
            fmt::format("{:.1f} GiB, {:.1f} available", static_cast<double>(host.memory_bytes) / 1073741824.0,
                        static_cast<double>(host.available_bytes) / 1073741824.0));
}

// What --device would find.
void check_device(Checklist& list, const DeviceChoice& choice) {
  const DeviceStatus gpu = cuda_device_status();
  for (const std::string& device : gpu.devices) list.good("GPU", device);
  if (gpu.devices.empty())
    list.note("GPU",
              gpu.driver ? "a driver but no device" : "no NVIDIA driver here; everything runs on the CPU");
  try {
    const RunDevice device = open_device(choice, [&](const std::string& line) { list.note("device", line); });
    list.good("device", fmt::format("--device {} decodes on {} and analyses pages there{}", choice.name,
                                    device.name(), device.ops ? "; it computes what the CPU does" : ""));
  } catch (const InputError& error) {
    list.bad("device", error.what());
  }
}

void check_reports(Checklist& list) {
  if (gnuplot_available()) {
    list.good("plots", "gnuplot found");
  } else {
    list.note("plots", "gnuplot not found, so no PNGs; apt-get install gnuplot-nox");
  }
  if (!load_plotly("").empty()) {
    list.good("HTML", "Plotly bundle found");
  } else {
    list.note("HTML", "no Plotly bundle, so reports are static; run scripts/fetch_plotly.py");
  }
}

void check_computation(Checklist& list, int threads) {
  for (const SelfCheck& check : run_self_checks(threads)) {
    if (check.passed) {
      list.good(check.subject, check.finding);
    } else {
      list.bad(check.subject, check.finding);
    }
  }
}

void check_model(Checklist& list, const CaptureOptions& options, int threads) {
  try {
    const SelfCheck check = check_model_decodes(options, threads);
    if (check.passed) {
      list.good(check.subject, check.finding);
    } else {
      list.bad(check.subject, check.finding);
    }
  } catch (const InputError& error) {
    list.bad("model", error.what());
  }
}

void run(const CaptureOptions& options, const CommonOptions& common) {
  Checklist list;
  check_machine(list);
  check_device(list, options.device);
  check_reports(list);
  check_computation(list, common.threads);
  if (options.model.empty()) {
    list.note("model", "not checked; name one with --model");
  } else {
    check_model(list, options, common.threads);
  }
  if (list.failures() > 0) throw InputError(fmt::format("doctor: {} checks failed", list.failures()));
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto* command = app.add_subcommand("doctor", "Check build, SIMD, GPU, model and ledger on this machine");
  auto options = std::make_shared<CaptureOptions>();
  auto common = std::make_shared<CommonOptions>();
  add_model_options(*command, *options);
  add_common_options(*command, *common);
  add_device_option(*command, options->device.name);
  command->callback([options, common] { run(*options, *common); });
}

}  // namespace kva::cli
