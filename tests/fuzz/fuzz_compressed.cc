// A compressed capture as a stranger may write it: the manifest, a zero byte, and what all of its files hold.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "compressors/compressed_capture.h"
#include "runtime/error.h"

namespace {

class Bytes : public kva::ByteSource {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}
  void read(std::span<std::byte> into) override {
    if (bytes_.size() < into.size()) throw kva::InputError("fuzz: too short");
    if (!into.empty()) std::memcpy(into.data(), bytes_.data(), into.size());
    bytes_.remove_prefix(into.size());
  }
  bool at_end() override { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  constexpr int64_t kMostBytes = 1 << 22;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  std::string_view rest = input.substr(std::min(end + 1, size));
  const auto open = [&](kva::StoredPart, const kva::StoredFile& file) {
    const auto bytes = std::min(rest.size(), static_cast<std::size_t>(file.facts.raw_bytes));
    auto source = std::make_unique<Bytes>(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
    return source;
  };
  try {
    const auto stored = kva::CompressedCapture::read(input.substr(0, end), "fuzz", open, kMostBytes);
    const kva::PageSet& pages = stored.layout();
    if (pages.page_count() == 0) return 0;
    std::vector<float> rows(static_cast<std::size_t>(pages.page_tokens) *
                            static_cast<std::size_t>(pages.head_dim));
    for (const kva::Side side : {kva::Side::kKey, kva::Side::kValue})
      stored.read_page(pages.page_count() - 1, pages.layers - 1, pages.kv_heads - 1, side,
                       kva::MatView<float>(rows.data(), pages.page_tokens, pages.head_dim));
  } catch (const kva::InputError&) {
  }
  return 0;
}
