#include "analyzer/redundancy/growth.h"

#include <algorithm>

namespace kva {

Growth::Growth(const Grouping& grouping, int page_tokens)
    : grouping_(grouping), page_tokens_(page_tokens), sets_(grouping.sets.size()) {
  for (std::size_t p = 0; p < grouping.prompts.size(); ++p) {
    SetCounts& set = sets_[static_cast<std::size_t>(grouping.set_of_prompt[p])];
    const std::size_t pages =
        std::max(set.pages.size(), static_cast<std::size_t>(grouping.prompts[p].size()));
    for (auto* counts : {&set.pages, &set.real, &set.shuffled}) counts->resize(pages);
  }
}

void Growth::add(const AllPairs& real, const AllPairs& shuffled) {
  const float threshold = static_cast<float>(kReferenceThreshold);
  const auto& own = real.joined(Metric::kCosineCentered).best_earlier;
  const auto& control = shuffled.joined(Metric::kCosineCentered).best_earlier;
  for (std::size_t p = 0; p < grouping_.prompts.size(); ++p) {
    SetCounts& set = sets_[static_cast<std::size_t>(grouping_.set_of_prompt[p])];
    const PageRange& range = grouping_.prompts[p];
    for (int64_t page = range.first; page < range.last; ++page) {
      const std::size_t ordinal = static_cast<std::size_t>(page - range.first);
      ++set.pages[ordinal];
      set.real[ordinal] += own[static_cast<std::size_t>(page)] > threshold;
      set.shuffled[ordinal] += control[static_cast<std::size_t>(page)] > threshold;
    }
  }
}

std::vector<GrowthRow> Growth::rows(SideBasis side) const {
  std::vector<GrowthRow> rows;
  for (std::size_t s = 0; s < sets_.size(); ++s) {
    const int64_t longest = static_cast<int64_t>(sets_[s].pages.size());
    if (longest == 0) continue;
    GrowthRow row{grouping_.set_names[s], side, kReferenceThreshold, {}, {}, {}};
    const int64_t step = (longest + kMaxPoints - 1) / kMaxPoints;
    int64_t pages = 0;
    int64_t real = 0;
    int64_t shuffled = 0;
    for (int64_t k = 0; k < longest; ++k) {
      pages += sets_[s].pages[static_cast<std::size_t>(k)];
      real += sets_[s].real[static_cast<std::size_t>(k)];
      shuffled += sets_[s].shuffled[static_cast<std::size_t>(k)];
      if ((k + 1) % step != 0 && k + 1 != longest) continue;
      const double all = static_cast<double>(std::max<int64_t>(1, pages));
      row.context_tokens.push_back((k + 1) * page_tokens_);
      row.redundancy.push_back(static_cast<double>(real) / all);
      row.shuffled.push_back(static_cast<double>(shuffled) / all);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kva
