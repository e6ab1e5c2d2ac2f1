// Which prompt and set each page belongs to, as ranges of pages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/kv/page_set.h"

namespace kva {

struct PageRange {
  int64_t first = 0;
  int64_t last = 0;  // one past the end

  int64_t size() const { return last - first; }
};

struct Grouping {
  std::vector<std::string> set_names;
  std::vector<PageRange> sets;     // of set s
  std::vector<PageRange> prompts;  // of prompt p; empty for a prompt without a full page
  std::vector<int> set_of_prompt;
  std::vector<int> prompt_of_page;
  std::vector<int> set_of_page;

  int64_t pages() const { return static_cast<int64_t>(prompt_of_page.size()); }
};

// Throws InputError where pages are not ordered by prompt, or prompts of one set are not adjacent.
Grouping group_pages(const PageSet& pages);

// The controls' random choices, the same for all layers, sides and heads.
struct ControlOrders {
  // Token k of the shuffled pages (page k / page_tokens, slot k % page_tokens) is token order[k] of the set.
  std::vector<int64_t> everywhere;   // tokens go anywhere
  std::vector<int64_t> within_sets;  // tokens stay in their set; independent of the other
  // One random other page for each page: anywhere, and in its set (-1 where it is alone there).
  std::vector<int64_t> partner;
  std::vector<int64_t> partner_in_set;
};

ControlOrders draw_controls(const Grouping& grouping, int page_tokens, uint64_t seed);

}  // namespace kva
