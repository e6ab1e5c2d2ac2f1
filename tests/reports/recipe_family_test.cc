#include "reports/recipe_family.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "compressors/recipe.h"

namespace kva {
namespace {

// An argument for methods that cannot do without.
std::string first_of(const MethodInfo& method) {
  if (method.name == "evict" || method.name == "merge") return "(keep=0.5)";
  return method.name == "lowrank" ? "(rank=0.5)" : "";
}

TEST(RecipeFamily, NumbersAloneMakeNoOtherMethod) {
  EXPECT_EQ(recipe_family("quant(k=4,v=4,axes=kivi,outliers=0.01)"), "quant(bits=#,axes=kivi,outliers=#)");
  EXPECT_EQ(recipe_family("quant(bits=3)"), recipe_family("quant(bits=8)"));
  EXPECT_EQ(recipe_family("dense(f16)"), "dense(f16)");
  EXPECT_EQ(recipe_family("dense(fp8_e4m3)"), "dense(fp8_e4m3)");
  EXPECT_EQ(recipe_family("layers(0-1,-1): dense(f16) ; rest: lowrank(rank=50%)"),
            "layers(#-#,-#): dense(f16) ; rest: lowrank(rank=#)");
  EXPECT_NE(recipe_family("quant(axes=kivi)"), recipe_family("quant(axes=token)"));
  EXPECT_EQ(recipe_family("quant(bits=4)@tokens>512"), "quant(bits=#)@tokens>#");
  EXPECT_EQ(recipe_family("evict(keep=0.5)@prefill | quant(bits=4)@prefill"),
            "evict(keep=#)@prefill | quant(bits=#)@prefill");
  EXPECT_EQ(recipe_family("keys(plain); lowrank(rank=0.5)"), "keys(plain) ; lowrank(rank=#)");
}

TEST(RecipeFamily, WidthsOfSidesAreBits) {
  for (const char* recipe : {"quant", "quant(8)", "quant(k=4,v=4)", "quant(k=8,v=3)", "quant(v=2)"})
    EXPECT_EQ(recipe_family(recipe), "quant(bits=#)") << recipe;
  EXPECT_EQ(recipe_family("quant(k=16,v=4)"), "quant(bits=#,k=dense)");
}

TEST(RecipeFamily, SayingTheDefaultMakesNoOtherMethod) {
  EXPECT_EQ(recipe_family("quant(k=4,v=4,axes=token,group=page,symmetric=false,outliers=0)"),
            "quant(bits=#)");
  EXPECT_EQ(recipe_family("quant(bits=4,axes=kivi,group=32)"), "quant(bits=#,axes=kivi,group=#)");
  EXPECT_EQ(recipe_family("quant(bits=4,rotate=true)"), "quant(bits=#,rotate=true)");
  EXPECT_NE(recipe_family("quant(bits=4,outliers=0.01)"), recipe_family("quant(bits=4)"));
  EXPECT_EQ(recipe_family("merge(keep=0.5,by=value)"), recipe_family("merge(keep=0.3)"));
  EXPECT_NE(recipe_family("merge(keep=0.5,by=d2o)"), recipe_family("merge(keep=0.5)"));
}

// Two settings of each, which are one method's.
TEST(RecipeFamily, KnowsEveryMethod) {
  const std::vector<std::pair<const char*, const char*>> pairs = {
      {"budget(bits=4.5)", "budget(bits=3)"},
      {"gear(bits=2,rank=4)", "gear(bits=4,rank=2)"},
      {"layershare(start=0,every=2)", "layershare(start=0.5,every=3)"},
      {"lowrank(rank=32)", "lowrank(rank=0.5)"},
      {"minicache(start=0.5,t=0.6)", "minicache(start=8,t=0.9)"},
      {"nuq(bits=3,outliers=0.02)", "nuq(bits=4,outliers=0.01)"},
      {"turboquant(bits=3)", "turboquant(4)"},
      {"dedup(cos=0.98)", "dedup(cos=0.9)"},
      {"evict(keep=0.5,window=128)", "evict(keep=0.25,window=64)"},
      {"lowrank(rank=0.5) | quant(bits=8)", "lowrank(rank=0.25) | quant(k=4,v=4)"}};
  for (const auto& [a, b] : pairs) EXPECT_EQ(recipe_family(a), recipe_family(b)) << a;
  std::set<std::string> families;
  for (const MethodInfo& method : methods())
    families.insert(recipe_family(std::string(method.name) + first_of(method)));
  EXPECT_EQ(families.size(), methods().size());
}

TEST(EvictionBase, DropsWhatTheRecipeMerges) {
  EXPECT_EQ(eviction_base("merge(keep=0.5)"), "evict(keep=0.5)");
  EXPECT_EQ(eviction_base("merge(keep=0.25,by=cam,sinks=0,window=128,next=8)@prefill"),
            "evict(keep=0.25,sinks=0,window=128)@prefill");
  EXPECT_EQ(eviction_base("layers(0): dense(f16) ; rest: merge(keep=0.5) | quant(bits=4)"),
            "layers(0): dense(f16) ; rest: evict(keep=0.5) | quant(bits=4)");
  EXPECT_EQ(eviction_base("keys(plain); merge(keep=0.1,keys=true)"), "keys(plain) ; evict(keep=0.1)");
  for (const char* none : {"evict(keep=0.5)", "quant(bits=4)", "dense(f16)", "dedup(exact)"})
    EXPECT_EQ(eviction_base(none), std::nullopt) << none;
}

TEST(EvictionBase, IsSpeltAsRowsAre) {
  for (const char* recipe : {"MERGE( keep = 0.50 )", "merge(0.3,kvmerger)@every=64"}) {
    const auto base = eviction_base(Recipe::parse(recipe).text());
    ASSERT_TRUE(base);
    EXPECT_EQ(Recipe::parse(*base).text(), *base);
  }
}

}  // namespace
}  // namespace kva
