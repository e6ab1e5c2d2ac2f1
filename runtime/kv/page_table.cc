#include "runtime/kv/page_table.h"

namespace kva {

PagePlaces page_places(const PageStore& store, const PageRef& ref) {
  const std::byte* payload = store.data(ref.where).payload;
  return {reinterpret_cast<const int32_t*>(payload),
          reinterpret_cast<const float*>(payload + ref.tokens * int64_t{sizeof(int32_t)})};
}

int64_t total_tokens(std::span<const PageRef> pages) {
  int64_t tokens = 0;
  for (const PageRef& ref : pages) tokens += ref.tokens;
  return tokens;
}

std::span<const PageRef> front_run(std::span<const PageRef> pages, int64_t tokens) {
  std::size_t count = 0;
  for (int64_t sum = 0; count < pages.size(); ++count) {
    sum += pages[count].tokens;
    if (count > 0 && sum > tokens) break;
  }
  return pages.first(count);
}

}  // namespace kva
