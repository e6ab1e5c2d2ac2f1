#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compressors/recipe.h"
#include "tests/error_of.h"

namespace kva {
namespace {

std::string refused(std::string_view text) {
  return error_of([&] { (void)Recipe::parse(text); });
}

// A Hadamard matrix and RoPE do not commute, so plain keys cannot be turned; values and dense keys can be
// with any basis.
TEST(Quant, RefusesToRotatePlainKeys) {
  for (const char* text :
       {"keys(plain) ; quant(rotate=true)", "quant(rotate=true) ; keys(plain)",
        "keys(plain) ; side(k): quant(rotate=true)", "keys(plain) ; quant(rotate=true,k=8,v=16)"})
    EXPECT_THAT(refused(text),
                testing::AllOf(testing::HasSubstr("quant: rotate=true"), testing::HasSubstr("keys(plain)")))
        << text;
  for (const char* text :
       {"quant(rotate=true)", "keys(page-relative) ; quant(rotate=true)", "keys(plain) ; quant",
        "keys(plain) ; side(v): quant(rotate=true)", "keys(plain) ; quant(rotate=true,k=16)"})
    EXPECT_EQ(refused(text), "no error") << text;
}

}  // namespace
}  // namespace kva
