#include "analyzer/redundancy/grouping.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "analyzer/redundancy/seeded.h"
#include "runtime/error.h"

namespace kva {
namespace {

// Streams of the seed.
enum Stream : uint64_t { kShuffleEverywhere = 1, kShuffleWithinSets, kPartners, kPartnersInSet };

int add_set(Grouping& grouping, const CapturedPrompt& prompt) {
  const auto known = std::find(grouping.set_names.begin(), grouping.set_names.end(), prompt.set);
  if (known == grouping.set_names.end()) {
    grouping.set_names.push_back(prompt.set);
    grouping.sets.emplace_back();
    return static_cast<int>(grouping.set_names.size()) - 1;
  }
  if (known + 1 != grouping.set_names.end())
    throw InputError(
        fmt::format("pages: prompt \"{}\" of set \"{}\": expected the prompts of a set one after "
                    "another, found set \"{}\" between them",
                    prompt.name, prompt.set, grouping.set_names.back()));
  return static_cast<int>(known - grouping.set_names.begin());
}

int64_t other_page(const PageRange& range, int64_t page, SeededRandom& random) {
  const int64_t draw = range.first + random.below(range.size() - 1);
  return draw + (draw >= page);
}

}  // namespace

Grouping group_pages(const PageSet& pages) {
  Grouping grouping;
  for (const CapturedPrompt& prompt : pages.prompts)
    grouping.set_of_prompt.push_back(add_set(grouping, prompt));
  grouping.prompts.resize(pages.prompts.size());
  int last = 0;
  for (int64_t p = 0; p < pages.page_count(); ++p) {
    const int prompt = pages.pages[static_cast<std::size_t>(p)].prompt;
    if (prompt < last || prompt >= static_cast<int>(pages.prompts.size()))
      throw InputError(
          fmt::format("pages: page {}: expected pages in the order of their prompts, found prompt "
                      "{} after prompt {} of {}",
                      p, prompt, last, pages.prompts.size()));
    last = prompt;
    const int set = grouping.set_of_prompt[static_cast<std::size_t>(prompt)];
    const auto extend = [p](PageRange& range) {
      if (range.size() == 0) range.first = p;
      range.last = p + 1;
    };
    extend(grouping.prompts[static_cast<std::size_t>(prompt)]);
    extend(grouping.sets[static_cast<std::size_t>(set)]);
    grouping.prompt_of_page.push_back(prompt);
    grouping.set_of_page.push_back(set);
  }
  return grouping;
}

ControlOrders draw_controls(const Grouping& grouping, int page_tokens, uint64_t seed) {
  ControlOrders orders;
  const int64_t tokens = grouping.pages() * page_tokens;
  orders.everywhere.resize(static_cast<std::size_t>(tokens));
  std::iota(orders.everywhere.begin(), orders.everywhere.end(), 0);
  orders.within_sets = orders.everywhere;
  SeededRandom everywhere(seed, kShuffleEverywhere);
  shuffle_range(orders.everywhere, 0, tokens, everywhere);
  SeededRandom within(seed, kShuffleWithinSets);
  for (const PageRange& set : grouping.sets)
    shuffle_range(orders.within_sets, set.first * page_tokens, set.last * page_tokens, within);
  SeededRandom partners(seed, kPartners);
  SeededRandom in_set(seed, kPartnersInSet);
  for (int64_t p = 0; p < grouping.pages(); ++p) {
    const PageRange& set =
        grouping.sets[static_cast<std::size_t>(grouping.set_of_page[static_cast<std::size_t>(p)])];
    orders.partner.push_back(other_page({0, grouping.pages()}, p, partners));
    orders.partner_in_set.push_back(set.size() < 2 ? -1 : other_page(set, p, in_set));
  }
  return orders;
}

}  // namespace kva
