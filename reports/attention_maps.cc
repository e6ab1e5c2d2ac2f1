#include "reports/attention_maps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "reports/json_number.h"
#include "reports/plots.h"
#include "reports/text_format.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kNumbers = "attention.json";
constexpr int kDigits = 3;
constexpr std::size_t kMostPanels = 9;
constexpr std::size_t kColumns = 3;
constexpr int kPanelPixels = 430;
constexpr double kLeast = 1e-4;  // the colour scale's lower end

std::vector<double> drawn_row(const AttentionMaps& map, const std::vector<float>& shares, int64_t query) {
  std::vector<double> row;
  for (int64_t key = 0; key < map.blocks; ++key) {
    const float share = shares[static_cast<std::size_t>(query * map.blocks + key)];
    row.push_back(share > 0 ? share : std::numeric_limits<double>::quiet_NaN());
  }
  return row;
}

void add_panel(const AttentionMaps& map, const std::vector<float>& shares, std::size_t index,
               std::size_t panels, FigureScript& script) {
  const std::size_t columns = std::min(panels, kColumns);
  const bool below = index + columns >= panels, first = index % columns == 0;
  script.panel(static_cast<int>(index / columns), static_cast<int>(index % columns), one_line(map.name, 44),
               below ? "key token" : "", first ? "query token" : "");
  std::vector<std::vector<double>> rows;
  for (int64_t query = 0; query < map.blocks; ++query) rows.push_back(drawn_row(map, shares, query));
  const double end = static_cast<double>(map.blocks * map.block_tokens) - 0.5;
  // Behind the cells lies what a query could have read.
  script.add(fmt::format(
      "unset grid\nset border 3\n{}\nset logscale cb\nset cbrange [{}:1]\nset format cb '%g'\n{}\n"
      "set cblabel 'share of a query''s attention' textcolor rgb '#374151' offset 1.5,0\n"
      "set xrange [-0.5:{}]\nset yrange [{}:-0.5]\nunset object\n"
      "set object 1 polygon from -0.5,-0.5 to {},{} to -0.5,{} to -0.5,-0.5 "
      "fillcolor rgb '#d1d5db' fillstyle solid noborder behind",
      kPalette, kLeast, index + 1 == panels ? "set colorbox" : "unset colorbox", end, end, end, end, end));
  script.plot({fmt::format("{} matrix using (($1+0.5)*{}-0.5):(($2+0.5)*{}-0.5):3 with image",
                           script.data(rows), map.block_tokens, map.block_tokens)});
}

}  // namespace

AttentionMaps take_attention(const KvCache& cache, SequenceId sequence, const std::string& name) {
  const KvCacheOptions& options = cache.options();
  AttentionMaps maps{
      .name = name, .layers = options.layers, .kv_heads = options.kv_heads, .tokens = cache.tokens(sequence)};
  maps.block_tokens = cache.attention_map(sequence, 0, 0).block_tokens();
  maps.blocks = (maps.tokens + maps.block_tokens - 1) / maps.block_tokens;
  for (int layer = 0; layer < maps.layers; ++layer) {
    for (int head = 0; head < maps.kv_heads; ++head) {
      const std::span<const float> cells = cache.attention_map(sequence, layer, head).cells();
      std::vector<float>& shares = maps.shares.emplace_back();
      for (int64_t query = 0; query < maps.blocks; ++query) {
        const int64_t queries = std::min(maps.block_tokens, maps.tokens - query * maps.block_tokens);
        for (int64_t key = 0; key < maps.blocks; ++key)
          shares.push_back(cells[static_cast<std::size_t>(query * kAttentionMapBins + key)] /
                           static_cast<float>(queries));
      }
    }
  }
  return maps;
}

Json attention_json(std::span<const AttentionMaps> maps, const std::string& model, const std::string& text) {
  Json json = {{"schema", "kvanalyze.attention"},
               {"schema_version", 1},
               {"model", model},
               {"text", text},
               {"maps", Json::array()}};
  for (const AttentionMaps& map : maps) {
    Json heads = Json::array();
    for (int layer = 0; layer < map.layers; ++layer) {
      for (int head = 0; head < map.kv_heads; ++head) {
        const std::vector<float>& shares = map.of(layer, head);
        Json rows = Json::array();
        for (int64_t query = 0; query < map.blocks; ++query) {
          Json row = Json::array();
          for (int64_t key = 0; key <= query; ++key)
            row.push_back(rounded(shares[static_cast<std::size_t>(query * map.blocks + key)], kDigits));
          rows.push_back(std::move(row));
        }
        heads.push_back({{"layer", layer}, {"kv_head", head}, {"shares", std::move(rows)}});
      }
    }
    json["maps"].push_back({{"name", map.name},
                            {"tokens", map.tokens},
                            {"block_tokens", map.block_tokens},
                            {"heads", std::move(heads)}});
  }
  return json;
}

Figure attention_figure(std::span<const AttentionMaps> maps, int layer, int kv_head, const std::string& model,
                        const std::string& text) {
  Figure figure{fmt::format("layer{}_head{}.png", layer, kv_head),
                fmt::format("Where KV head {} of layer {} looks", kv_head, layer),
                "The share of a query's attention that each block of keys got.", ""};
  const std::size_t panels = std::min(maps.size(), kMostPanels);
  const auto columns = static_cast<int>(std::min(panels, kColumns));
  const auto rows = static_cast<int>((panels + kColumns - 1) / kColumns);
  const int width = 290 + columns * (kPanelPixels + 50), height = 300 + rows * (kPanelPixels + 100) - 100;
  FigureScript script(figure.file, width, height, rows, columns);
  script.sides(95.0 / width, 1 - 165.0 / width);
  script.gaps(60.0 / width, 100.0 / height);
  const int64_t block = maps.front().block_tokens;
  script.title(
      figure.title,
      one_line(fmt::format("{}, {}; {}grey: evicted or hidden{}", one_line(model, 40), one_line(text, 60),
                           block > 1 ? fmt::format("blocks of {} tokens; ", block) : "",
                           panels < maps.size() ? fmt::format("; {} of {} maps", panels, maps.size()) : ""),
               static_cast<std::size_t>(width) / 8));
  for (std::size_t i = 0; i < panels; ++i) add_panel(maps[i], maps[i].of(layer, kv_head), i, panels, script);
  figure.script = script.finish();
  return figure;
}

bool is_attention_file(const std::string& name) {
  int layer = 0, head = 0, length = 0;
  return name == kNumbers ||
         (std::sscanf(name.c_str(), "layer%9d_head%9d.png%n", &layer, &head, &length) == 2 &&
          length == static_cast<int>(name.size()));
}

std::vector<std::string> write_attention(const std::string& folder, std::span<const AttentionMaps> maps,
                                         const std::string& model, const std::string& text, bool plots,
                                         Progress& progress) {
  KVA_CHECK(!maps.empty(), "maps to write");
  make_directories(folder);
  write_text_file(folder + "/" + kNumbers, attention_json(maps, model, text).dump() + "\n");
  std::vector<std::string> notes;
  if (!plots) return notes;
  progress.stage("images", maps.front().layers, "layers");
  // Layer by layer: a script of all heads would be as long as their numbers.
  for (int layer = 0; layer < maps.front().layers; ++layer) {
    throw_if_interrupted();
    std::vector<Figure> figures;
    figures.reserve(static_cast<std::size_t>(maps.front().kv_heads));
    for (int head = 0; head < maps.front().kv_heads; ++head)
      figures.push_back(attention_figure(maps, layer, head, model, text));
    for (std::string& note : draw_figures(figures, folder, "the same command again").notes)
      if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
    progress.update(layer + 1);
  }
  progress.finish();
  return notes;
}

}  // namespace kva
