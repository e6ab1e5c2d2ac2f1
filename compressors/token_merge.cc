#include "compressors/token_merge.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace kva {
namespace {

// What becomes of one survivor: own * its row + sum of weight * row of the tokens that it takes.
struct Fold {
  int64_t survivor = 0;
  double own = 1.0;
  std::vector<std::pair<int64_t, double>> taken;
};

std::size_t at(int64_t token) { return static_cast<std::size_t>(token); }

class Merger {
 public:
  Merger(const TokenPage& page, const MergeOptions& options, std::optional<double>& threshold)
      : page_(page), options_(options), threshold_(threshold) {}

  MergedPage make() {
    if (options_.rule == MergeRule::kKvMerger) {
      group_neighbours();
    } else {
      for (const int64_t t : survivors(page_, options_.keep, options_.sinks))
        folds_.push_back({.survivor = t});
      if (options_.rule == MergeRule::kValue) into_nearest();
      if (options_.rule == MergeRule::kD2o) into_similar();
      if (options_.rule == MergeRule::kCam) into_next();
    }
    return result();
  }

 private:
  bool is_sink(int64_t token) const { return page_.positions[at(token)] < options_.sinks; }
  double mass(int64_t token) const { return page_.mass[at(token)]; }

  // The tokens that go, ascending.
  std::vector<int64_t> leaving() const {
    std::vector<int64_t> tokens;
    auto fold = folds_.begin();
    for (int64_t t = 0; t < page_.tokens(); ++t) {
      if (fold != folds_.end() && fold->survivor == t)
        ++fold;
      else
        tokens.push_back(t);
    }
    return tokens;
  }

  // Of the tokens' keys; 1 between zeros, 0 between a zero and another.
  double cosine(int64_t a, int64_t b) const {
    double ab = 0.0, aa = 0.0, bb = 0.0;
    const float* x = page_.k->view().row(a);
    const float* y = page_.k->view().row(b);
    for (int64_t i = 0; i < page_.k->width; ++i) {
      ab += double{x[i]} * y[i];
      aa += double{x[i]} * x[i];
      bb += double{y[i]} * y[i];
    }
    if (aa <= 0.0 || bb <= 0.0) return aa == bb ? 1.0 : 0.0;
    return ab / (std::sqrt(aa) * std::sqrt(bb));
  }

  double squared_distance(int64_t a, int64_t b) const {
    double sum = 0.0;
    for (int64_t i = 0; i < page_.k->width; ++i) {
      const double d = double{page_.k->view().at(a, i)} - page_.k->view().at(b, i);
      sum += d * d;
    }
    return sum;
  }

  struct Nearest {
    Fold* fold = nullptr;  // null where all survivors are sinks
    double cosine = 0.0;
  };
  Nearest nearest(int64_t token) {
    Nearest best;
    for (Fold& fold : folds_) {
      if (is_sink(fold.survivor)) continue;
      const double found = cosine(token, fold.survivor);
      if (!best.fold || found > best.cosine) best = {&fold, found};
    }
    return best;
  }

  // own and taken become shares of 1.
  static void normalise(Fold& fold) {
    double sum = fold.own;
    for (const auto& [token, weight] : fold.taken) sum += weight;
    if (sum <= 0.0) {
      for (auto& [token, weight] : fold.taken) weight = 1.0;
      fold.own = 1.0;
      sum = 1.0 + static_cast<double>(fold.taken.size());
    }
    fold.own /= sum;
    for (auto& [token, weight] : fold.taken) weight /= sum;
  }

  void into_nearest() {
    for (const int64_t token : leaving())
      if (const Nearest to = nearest(token); to.fold) to.fold->taken.emplace_back(token, mass(token));
    for (Fold& fold : folds_) {
      if (fold.taken.empty()) continue;
      fold.own = mass(fold.survivor);
      normalise(fold);
    }
  }

  void into_similar() {
    std::vector<std::pair<int64_t, Nearest>> found;
    for (const int64_t token : leaving())
      if (const Nearest to = nearest(token); to.fold) found.emplace_back(token, to);
    if (found.empty()) return;
    const bool first_page = !threshold_;
    if (first_page) {
      double sum = 0.0;
      for (const auto& [token, to] : found) sum += to.cosine;
      threshold_ = sum / static_cast<double>(found.size());
    }
    for (const auto& [token, to] : found) {
      if (!first_page) *threshold_ = options_.beta * to.cosine + (1.0 - options_.beta) * *threshold_;
      if (to.cosine >= *threshold_) to.fold->taken.emplace_back(token, std::exp(to.cosine));
    }
    for (Fold& fold : folds_) {
      if (fold.taken.empty()) continue;
      fold.own = std::numbers::e;
      normalise(fold);
    }
  }

  void into_next() {
    for (const int64_t token : leaving()) {
      const auto first =
          std::find_if(folds_.begin(), folds_.end(), [&](const Fold& fold) { return fold.survivor > token; });
      const auto count = std::min<std::ptrdiff_t>(options_.next, folds_.end() - first);
      if (count == 0 || mass(token) <= 0.0) continue;
      double sum = 0.0;
      for (auto fold = first; fold != first + count; ++fold) sum += mass(fold->survivor);
      const double mean = sum / static_cast<double>(count);
      const double scale = mass(token) < mean ? mass(token) / mean : 1.0;
      for (auto fold = first; fold != first + count; ++fold)
        fold->taken.emplace_back(token, scale / static_cast<double>(count));
    }
  }

  // Which tokens join the one before them: the most similar ones over the threshold, as many as have to go.
  std::vector<bool> joined(int64_t going) const {
    std::vector<std::pair<double, int64_t>> links;
    for (int64_t t = 1; t < page_.tokens(); ++t) {
      if (is_sink(t - 1) || is_sink(t)) continue;
      if (const double found = cosine(t - 1, t); found > options_.threshold) links.emplace_back(found, t);
    }
    std::stable_sort(links.begin(), links.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    links.resize(std::min(links.size(), at(going)));
    std::vector<bool> joins(at(page_.tokens()), false);
    for (const auto& link : links) joins[at(link.second)] = true;
    return joins;
  }

  void group_neighbours() {
    const auto staying = static_cast<int64_t>(survivors(page_, options_.keep, options_.sinks).size());
    const std::vector<bool> joins = joined(page_.tokens() - staying);
    std::vector<std::pair<int64_t, int64_t>> groups;  // first token, and the one after the last
    for (int64_t t = 0; t < page_.tokens(); ++t) {
      if (joins[at(t)])
        ++groups.back().second;
      else
        groups.emplace_back(t, t + 1);
    }
    keep_heaviest(groups, staying);
    for (const auto& [first, end] : groups) folds_.push_back(fold_of(first, end));
  }

  void keep_heaviest(std::vector<std::pair<int64_t, int64_t>>& groups, int64_t count) const {
    const auto weight = [&](const std::pair<int64_t, int64_t>& group) {
      return std::accumulate(page_.mass.begin() + group.first, page_.mass.begin() + group.second, 0.0);
    };
    std::stable_sort(groups.begin(), groups.end(), [&](const auto& a, const auto& b) {
      if (is_sink(a.first) != is_sink(b.first)) return is_sink(a.first);
      return !is_sink(a.first) && weight(a) > weight(b);
    });
    groups.resize(at(count));
    std::sort(groups.begin(), groups.end());
  }

  // A group by its pivot.
  Fold fold_of(int64_t first, int64_t end) const {
    const auto heaviest = std::max_element(page_.mass.begin() + first, page_.mass.begin() + end);
    Fold fold{.survivor = heaviest - page_.mass.begin()};
    if (end - first == 1) return fold;
    double sum = 0.0;
    for (int64_t t = first; t < end; ++t) {
      if (t == fold.survivor) continue;
      fold.taken.emplace_back(t, squared_distance(fold.survivor, t));
      sum += fold.taken.back().second;
    }
    const double variance = sum / static_cast<double>(fold.taken.size());
    for (auto& [token, weight] : fold.taken)
      weight = variance > 0.0 ? std::exp(-weight / (2.0 * variance)) : 1.0;
    normalise(fold);
    return fold;
  }

  void fold_rows(const DraftStream& stream, bool folded, std::vector<float>& out) const {
    for (const Fold& fold : folds_) {
      for (int64_t i = 0; i < stream.width; ++i) {
        const float own = stream.view().at(fold.survivor, i);
        double value = own;
        if (folded && !fold.taken.empty()) {
          value *= fold.own;
          for (const auto& [token, weight] : fold.taken) value += weight * stream.view().at(token, i);
        }
        out.push_back(static_cast<float>(value));
      }
    }
  }

  MergedPage result() const {
    MergedPage made;
    const bool counted = options_.bias && options_.rule != MergeRule::kCam;
    std::vector<bool> merged(at(page_.tokens()), false);
    for (const Fold& fold : folds_) {
      double count = page_.counts[at(fold.survivor)];
      for (const auto& [token, weight] : fold.taken) {
        if (counted) count += page_.counts[at(token)];
        merged[at(token)] = true;
      }
      made.kept.push_back(fold.survivor);
      made.counts.push_back(count);
    }
    made.merged = std::count(merged.begin(), merged.end(), true);
    made.dropped = page_.tokens() - static_cast<int64_t>(made.kept.size()) - made.merged;
    fold_rows(*page_.k, options_.keys, made.k);
    fold_rows(*page_.v, true, made.v);
    return made;
  }

  const TokenPage& page_;
  const MergeOptions& options_;
  std::optional<double>& threshold_;
  std::vector<Fold> folds_;  // by survivor, ascending
};

}  // namespace

MergedPage merge_tokens(const TokenPage& page, const MergeOptions& options,
                        std::optional<double>& d2o_threshold) {
  return Merger(page, options, d2o_threshold).make();
}

}  // namespace kva
