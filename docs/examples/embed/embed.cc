// Analyses the KV cache of a model on one prompt and prints where the full report went.
#include <kvanalyze.h>

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT OUTPUT_FOLDER\n", argv[0]);
    return 1;
  }
  try {
    kvanalyze::RedundancyRequest request;
    request.model = argv[1];
    request.prompts = {argv[2]};
    request.output_folder = argv[3];
    request.plots = false;
    const std::string report_json = kvanalyze::analyze_redundancy(request);
    std::printf("%s: %zu bytes of report in %s\n", kvanalyze::version(), report_json.size(), argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
