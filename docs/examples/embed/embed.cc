// Analyses the KV cache of a model on one prompt and prints where the full report went; then, where there are a
// text and recipes, judges them side by side on it.
#include <kvanalyze.h>

#include <cstdio>
#include <exception>
#include <string>

int main(int argc, char** argv) {
  if (argc != 4 && argc < 6) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT OUTPUT_FOLDER [TEXT_FILE RECIPE...]\n", argv[0]);
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
    if (argc == 4) return 0;

    kvanalyze::AbRequest ab;
    ab.model = argv[1];
    ab.text_file = argv[4];
    ab.recipes.assign(argv + 5, argv + argc);
    ab.output_folder = std::string(argv[3]) + "-ab";
    ab.context = 256;
    ab.plots = false;
    kvanalyze::compare_recipes(ab);
    std::printf("recipes side by side in %s\n", ab.output_folder.c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
