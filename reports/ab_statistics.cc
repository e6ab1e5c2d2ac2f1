#include "reports/ab_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/check.h"
#include "reports/recipe_family.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

// What a point on a curve needs of a row.
struct RowLosses {
  CurvePoint kl;
  CurvePoint loss;  // of ln(perplexity / perplexity of the base)
  std::vector<double> kl_replicates;
  std::vector<double> loss_replicates;
};

std::vector<double> loss_increase(const ScoreSeries& series) {
  std::vector<double> values;
  values.reserve(series.tokens.size());
  for (const TokenScore& score : series.tokens) values.push_back(score.nll - score.nll_base);
  return values;
}

RowLosses row_losses(const Candidate& candidate, const RowBytes& bytes, const QualitySummary& quality,
                     const BlockBootstrap& bootstrap) {
  const int64_t held = bytes.ledger.held();
  return {.kl = {held, quality.kl_mean.value},
          .loss = {held, quality.log_perplexity_ratio.value},
          .kl_replicates = bootstrap.replicates(kl_series(candidate.scores)),
          .loss_replicates = bootstrap.replicates(loss_increase(candidate.scores))};
}

struct Curves {
  ReplicatedCurve kl;
  ReplicatedCurve loss;

  void add(const RowLosses& row) {
    kl.points.push_back(row.kl);
    kl.replicates.push_back(row.kl_replicates);
    loss.points.push_back(row.loss);
    loss.replicates.push_back(row.loss_replicates);
  }

  // What is left of a method once it is used well: a setting that another one beats in bytes and mean KL
  // would pull the curve up between those that are not beaten.
  Curves front() const {
    Curves best;
    for (const std::size_t i : pareto_front(kl.points)) {
      best.kl.points.push_back(kl.points[i]);
      best.kl.replicates.push_back(kl.replicates[i]);
      best.loss.points.push_back(loss.points[i]);
      best.loss.replicates.push_back(loss.replicates[i]);
    }
    return best;
  }
};

std::vector<EqualBytesRow> at_equal_bytes(const std::vector<const Candidate*>& rows,
                                          const std::vector<RowLosses>& losses) {
  std::map<std::string, Curves> curves;
  for (std::size_t i = 0; i < rows.size(); ++i) curves[recipe_family(rows[i]->recipe)].add(losses[i]);
  for (auto& [family, curve] : curves) curve = curve.front();
  std::vector<EqualBytesRow> result;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    throw_if_interrupted();
    Curves own;
    own.add(losses[i]);
    const int64_t bytes = losses[i].kl.bytes;
    for (const auto& [family, curve] : curves) {
      if (family == recipe_family(rows[i]->recipe)) continue;
      const auto kl = loss_difference_at_bytes(own.kl, curve.kl, bytes, LossScale::kLog);
      const auto loss = loss_difference_at_bytes(own.loss, curve.loss, bytes, LossScale::kLinear);
      if (kl && loss) result.push_back({i, family, static_cast<int64_t>(curve.kl.points.size()), *kl, *loss});
    }
  }
  return result;
}

std::vector<RowDifference> against_bases(const std::vector<const Candidate*>& rows,
                                         const BootstrapOptions& bootstrap) {
  std::vector<RowDifference> result;
  for (std::size_t a = 0; a < rows.size(); ++a) {
    const auto base = eviction_base(rows[a]->recipe);
    for (std::size_t b = 0; base && b < rows.size(); ++b)
      if (rows[b]->recipe == *base)
        result.push_back({a, b, compare_quality(rows[a]->scores, rows[b]->scores, bootstrap)});
  }
  return result;
}

// The tokens of each turn alone.
std::vector<QualitySummary> by_turn(const ScoreSeries& series, const WindowOptions& windows,
                                    const BootstrapOptions& bootstrap) {
  if (windows.turns == 1) return {};
  std::vector<ScoreSeries> turns(static_cast<std::size_t>(windows.turns));
  std::size_t next = 0;
  for (const int64_t tokens : series.window_tokens) {
    int64_t turn = -1;
    for (int64_t i = 0; i < tokens; ++i, ++next) {
      ScoreSeries& of_turn = turns[static_cast<std::size_t>(turn_of(i, windows))];
      if (turn_of(i, windows) != turn) of_turn.begin_window();
      turn = turn_of(i, windows);
      of_turn.append({&series.tokens[next], 1});
    }
  }
  std::vector<QualitySummary> summaries;
  for (const ScoreSeries& turn : turns)
    if (!turn.tokens.empty()) summaries.push_back(summarize(turn, bootstrap));
  return summaries;
}

}  // namespace

RowBytes row_bytes(const Candidate& candidate) {
  KVA_CHECK(!candidate.windows.empty(), "bytes of a row without a window");
  int64_t longest = 0;
  for (const WindowBytes& window : candidate.windows) longest = std::max(longest, window.tokens);
  RowBytes row;
  row.tokens = longest;
  ByteLedger sum;
  for (const WindowBytes& window : candidate.windows) {
    if (window.tokens != longest) continue;
    ++row.windows;
    sum.payload += window.ledger.payload;
    sum.scales += window.ledger.scales;
    sum.side += window.ledger.side;
    sum.tables += window.ledger.tables;
    sum.slack += window.ledger.slack;
    row.layers.resize(window.layers.size());
    for (std::size_t layer = 0; layer < window.layers.size(); ++layer)
      row.layers[layer] += window.layers[layer];
    row.ledger.workspace = std::max(row.ledger.workspace, window.ledger.workspace);
    row.ledger.peak = std::max(row.ledger.peak, window.ledger.peak);
  }
  for (double& bytes : row.layers) bytes /= static_cast<double>(row.windows);
  const auto mean = [&](int64_t total) { return (total + row.windows / 2) / row.windows; };
  row.ledger.payload = mean(sum.payload);
  row.ledger.scales = mean(sum.scales);
  row.ledger.side = mean(sum.side);
  row.ledger.tables = mean(sum.tables);
  row.ledger.slack = mean(sum.slack);
  return row;
}

AbStatistics ab_statistics(const Evaluation& evaluation, const WindowOptions& windows,
                           const BootstrapOptions& bootstrap) {
  std::vector<const Candidate*> rows = {&evaluation.baseline};
  for (const Candidate& candidate : evaluation.candidates) rows.push_back(&candidate);
  const BlockBootstrap blocks(evaluation.baseline.scores.window_tokens, bootstrap);
  AbStatistics result;
  result.bootstrap = bootstrap;
  std::vector<RowLosses> losses;
  std::vector<CurvePoint> points;
  for (const Candidate* row : rows) {
    throw_if_interrupted();
    result.rows.push_back(summarize(row->scores, bootstrap));
    result.bytes.push_back(row_bytes(*row));
    result.turns.push_back(by_turn(row->scores, windows, bootstrap));
    losses.push_back(row_losses(*row, result.bytes.back(), result.rows.back(), blocks));
    points.push_back(losses.back().kl);
  }
  result.rechunked = summarize(evaluation.rechunked.scores, bootstrap);
  for (std::size_t a = 1; a < rows.size(); ++a)
    for (std::size_t b = 0; b < a; ++b) {
      throw_if_interrupted();
      result.differences.push_back({a, b, compare_quality(rows[a]->scores, rows[b]->scores, bootstrap)});
    }
  result.equal_bytes = at_equal_bytes(rows, losses);
  result.against_bases = against_bases(rows, bootstrap);
  result.front = pareto_front(points);
  return result;
}

}  // namespace kva
