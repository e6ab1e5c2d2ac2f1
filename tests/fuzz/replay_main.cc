// Runs a fuzz target over every file of its corpus and over deterministic mutations of each: truncations,
// flipped bytes and doubled pieces. The sanitizers judge.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);

namespace {

void run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

std::string mutated(const std::string& seed, std::mt19937& random) {
  std::string input = seed;
  switch (random() % 3) {
    case 0: input.resize(random() % (input.size() + 1)); break;
    case 1:
      for (int flips = 1 + static_cast<int>(random() % 4); flips > 0; --flips)
        input[random() % input.size()] = static_cast<char>(random());
      break;
    default: input.insert(random() % input.size(), input.substr(random() % input.size(), random() % 64));
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
    return 1;
  }
  constexpr int kMutations = 300;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  int runs = 0;
  for (const auto& path : files) {
    std::ifstream stream(path, std::ios::binary);
    const std::string seed{std::istreambuf_iterator<char>(stream), {}};
    run(seed);
    std::mt19937 random(static_cast<uint32_t>(seed.size()));
    for (int i = 0; i < kMutations && !seed.empty(); ++i) run(mutated(seed, random));
    runs += 1 + kMutations;
  }
  std::printf("%zu files, %d inputs\n", files.size(), runs);
  return files.empty() ? 1 : 0;
}
