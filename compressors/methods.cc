#include "compressors/methods.h"

#include <array>

#include "compressors/spelling.h"

// One line a method: NAME stands for MethodInfo NAME_method(), defined in compressors/methods/NAME.cc.
#define KVA_METHODS(X) \
  X(dense)             \
  X(quant)             \
  X(nuq)               \
  X(turboquant)        \
  X(gear)              \
  X(budget)            \
  X(pq)                \
  X(minicache)         \
  X(layershare)        \
  X(lowrank)           \
  X(evict)             \
  X(merge)             \
  X(dedup)             \
  X(random)            \
  X(attentiontop)      \
  X(attentionbottom)   \
  X(hybridnpercent)    \
  X(slidingwindow)     \
  X(adaptiveattention) \
  X(attentionsink)     \
  X(l2norm)            \
  X(keydiff)           \
  X(h2o)               \
  X(snapkv)            \
  X(pyramidkv)         \
  X(adakv)             \
  X(duoattention)      \
  X(fastgen)           \
  X(zstd)

namespace kva {

#define KVA_DECLARE(name) MethodInfo name##_method();
KVA_METHODS(KVA_DECLARE)
#undef KVA_DECLARE

std::span<const MethodInfo> methods() {
#define KVA_DESCRIBE(name) name##_method(),
  static const std::array list = {KVA_METHODS(KVA_DESCRIBE)};
#undef KVA_DESCRIBE
  return list;
}

const MethodInfo* find_method(std::string_view name) {
  const std::string lower = lower_case(name);
  for (const MethodInfo& method : methods()) {
    if (method.name == lower) return &method;
    for (const MethodAlias& alias : method.aliases)
      if (lower_case(alias.name) == lower) return &method;
  }
  return nullptr;
}

}  // namespace kva
