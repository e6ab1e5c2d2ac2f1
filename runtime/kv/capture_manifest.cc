#include "runtime/kv/capture_manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/error.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFormat = "kvanalyze.capture";
constexpr int64_t kMostPositions = int64_t{1} << 40;

ordered_json rope_json(const std::optional<Rope>& rope) {
  if (!rope) return nullptr;
  return {{"rotary_dim", rope->rotary_dim()}, {"inverse_frequencies", rope->inverse_frequencies()}};
}

std::optional<Rope> parse_rope(const JsonNode& root, int head_dim) {
  const auto node = root.find("rope");
  if (!node) return std::nullopt;
  const int64_t rotary_dim = node->at("rotary_dim").as_int(2, head_dim);
  const JsonNode list = node->at("inverse_frequencies");
  if (rotary_dim % 2 != 0 || list.size() != rotary_dim / 2)
    list.fail(fmt::format("rotary_dim / 2 = {} numbers", rotary_dim / 2));
  std::vector<float> frequencies;
  for (int64_t i = 0; i < list.size(); ++i)
    frequencies.push_back(static_cast<float>(list.at(i).as_number(0.0, 1e6)));
  return Rope(head_dim, std::move(frequencies));
}

void parse_shape(const JsonNode& root, PageSet& layout) {
  layout.layers = static_cast<int>(root.at("layers").as_int(1, 4096));
  layout.kv_heads = static_cast<int>(root.at("kv_heads").as_int(1, 1 << 16));
  layout.head_dim = static_cast<int>(root.at("head_dim").as_int(1, 1 << 16));
  layout.page_tokens = static_cast<int>(root.at("page_tokens").as_int(1, kMaxPageTokens));
  const JsonNode dtype = root.at("dtype");
  const auto type = parse_dtype(dtype.as_string());
  if (!type || dtype_name(*type) != dtype.as_string()) dtype.fail("\"f32\", \"f16\" or \"bf16\"");
  layout.dtype = *type;
  const JsonNode basis = root.at("key_basis");
  const auto known = parse_key_basis(basis.as_string());
  if (!known) basis.fail("\"rotated\", \"plain\" or \"page-relative\"");
  layout.key_basis = *known;
  layout.rope = parse_rope(root, layout.head_dim);
}

CapturedPrompt parse_prompt(const JsonNode& node, int page_tokens) {
  CapturedPrompt prompt;
  prompt.set = node.at("set").as_string();
  prompt.name = node.at("name").as_string();
  prompt.tokens = node.at("tokens").as_int(0, kMostPositions);
  prompt.generated = node.at("generated").as_int(0, prompt.tokens);
  prompt.pages = node.at("pages").as_int(0, prompt.tokens / page_tokens);
  return prompt;
}

void parse_prompts(const JsonNode& root, PageSet& layout) {
  const JsonNode prompts = root.at("prompts");
  const int64_t pages = root.at("pages").as_int(0, kMostPositions);
  std::vector<std::string> sets;
  int64_t sum = 0;
  for (int64_t p = 0; p < prompts.size(); ++p) {
    const CapturedPrompt prompt = parse_prompt(prompts.at(p), layout.page_tokens);
    if (sets.empty() || sets.back() != prompt.set) {
      if (std::find(sets.begin(), sets.end(), prompt.set) != sets.end())
        prompts.at(p).at("set").fail("the prompts of a set side by side");
      sets.push_back(prompt.set);
    }
    sum = std::min(sum + prompt.pages, kMostPositions + 1);
    layout.prompts.push_back(prompt);
  }
  if (sum != pages) prompts.fail(fmt::format("{} pages in all prompts together", pages));
}

void parse_pages(const JsonNode& root, PageSet& layout) {
  const JsonNode starts = root.at("page_starts");
  const int64_t pages = root.at("pages").as_int(0, kMostPositions);
  if (starts.size() != pages) starts.fail(fmt::format("one position for each of {} pages", pages));
  for (std::size_t p = 0; p < layout.prompts.size(); ++p) {
    int64_t next = 0;
    for (int64_t i = 0; i < layout.prompts[p].pages; ++i) {
      const int64_t start = starts.at(layout.page_count()).as_int(next, kMostPositions);
      layout.pages.push_back({static_cast<int>(p), start});
      next = start + layout.page_tokens;
    }
  }
}

// Bytes of a file that holds the layout's pages. The product is at most 2^40 * 2^16 * 2^10 * 2^16 * 4.
int64_t expected_file_bytes(const PageSet& layout, const JsonNode& root) {
  const double bytes = static_cast<double>(layout.page_count()) * static_cast<double>(layout.page_values()) *
                       static_cast<double>(dtype_bytes(layout.dtype));
  if (bytes > 0x1p62) root.at("pages").fail("files of less than 2^62 bytes");
  return kCaptureHeaderBytes + layout.page_count() * layout.page_values() * dtype_bytes(layout.dtype);
}

CaptureFile parse_file(const JsonNode& node, const std::string& name, int64_t bytes) {
  if (node.at("name").as_string() != name) node.at("name").fail(fmt::format("\"{}\"", name));
  if (node.at("bytes").as_int(0, INT64_MAX) != bytes)
    node.at("bytes").fail(fmt::format("{}, as shape and type imply", bytes));
  return {name, bytes, parse_hash(node.at("hash"))};
}

}  // namespace

std::string capture_file_name(int layer, Side side) {
  return fmt::format("layer_{:02}.{}.safetensors", layer, capture_tensor_name(side));
}

std::string capture_tensor_name(Side side) { return side == Side::kKey ? "k" : "v"; }

ordered_json layout_json(const PageSet& layout) {
  ordered_json json = {{"layers", layout.layers},           {"kv_heads", layout.kv_heads},
                       {"head_dim", layout.head_dim},       {"page_tokens", layout.page_tokens},
                       {"dtype", dtype_name(layout.dtype)}, {"key_basis", key_basis_name(layout.key_basis)},
                       {"rope", rope_json(layout.rope)},    {"pages", layout.page_count()}};
  json["prompts"] = ordered_json::array();
  for (const CapturedPrompt& prompt : layout.prompts)
    json["prompts"].push_back({{"set", prompt.set},
                               {"name", prompt.name},
                               {"tokens", prompt.tokens},
                               {"generated", prompt.generated},
                               {"pages", prompt.pages}});
  json["page_starts"] = ordered_json::array();
  for (const PageOrigin& page : layout.pages) json["page_starts"].push_back(page.start);
  return json;
}

PageSet parse_layout(const JsonNode& root) {
  PageSet layout;
  parse_shape(root, layout);
  parse_prompts(root, layout);
  parse_pages(root, layout);
  return layout;
}

std::string parse_hash(const JsonNode& node) {
  std::string hash = node.as_string();
  const bool is_hash = hash.size() == 37 && hash.rfind("xxh3:", 0) == 0 &&
                       hash.find_first_not_of("0123456789abcdef", 5) == std::string::npos;
  if (!is_hash) node.fail("\"xxh3:\" and 32 hexadecimal digits");
  return hash;
}

ordered_json manifest_json(const CaptureManifest& manifest, const ordered_json& facts,
                           const ordered_json& provenance) {
  ordered_json json = {{"format", kFormat}, {"version", kCaptureVersion}};
  json.update(layout_json(manifest.layout));
  json["files"] = ordered_json::array();
  for (const CaptureFile& file : manifest.files)
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"hash", file.hash}});
  json["facts"] = facts;
  json["provenance"] = provenance;
  return json;
}

CaptureManifest parse_manifest(std::string_view text, const std::string& source) {
  const JsonNode root = JsonNode::parse_text(text, source, {.unique_keys = true});
  const JsonNode format = root.at("format");
  if (format.as_string() != kFormat) format.fail(fmt::format("\"{}\"", kFormat));
  const int64_t version = root.at("version").as_int(1, INT32_MAX);
  if (version > kCaptureVersion)
    throw InputError(
        fmt::format("{}: version: this capture has version {}, this program reads up to {}; "
                    "use a newer kvanalyze",
                    source, version, kCaptureVersion));
  CaptureManifest manifest;
  manifest.layout = parse_layout(root);
  const int64_t bytes = expected_file_bytes(manifest.layout, root);
  const JsonNode files = root.at("files");
  const int layers = manifest.layout.layers;
  if (files.size() != int64_t{2} * layers) files.fail(fmt::format("{} files, two a layer", 2 * layers));
  for (int layer = 0; layer < layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue})
      manifest.files.push_back(parse_file(files.at(static_cast<int64_t>(side_index(layer, side))),
                                          capture_file_name(layer, side), bytes));
  for (const char* object : {"facts", "provenance"})
    if (!root.at(object).is_object()) root.at(object).fail("an object");
  return manifest;
}

}  // namespace kva
