#include "runtime/kv/page_table.h"

namespace kva {

PagePlaces page_places(const PageStore& store, const PageRef& ref) {
  const std::byte* payload = store.data(ref.where).payload;
  return {reinterpret_cast<const int32_t*>(payload),
          reinterpret_cast<const float*>(payload + ref.tokens * int64_t{sizeof(int32_t)})};
}

}  // namespace kva
