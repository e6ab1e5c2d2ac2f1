#include "kernels/onednn_product.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu_features.h"

namespace kva {
namespace {

bool processor_has(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.rfind("flags", 0) == 0) return (line + " ").find(" " + flag + " ") != std::string::npos;
  return false;
}

// tests/CMakeLists.txt runs this program once for each instruction set that oneDNN knows.
TEST(OnednnProducts, TakeTheInstructionsThatTheyAreHeldTo) {
  const char* held = std::getenv("DNNL_MAX_CPU_ISA");
  const std::string isa = held ? held : "";
  if (isa == "AVX2") {
    EXPECT_EQ(product_isa_name(), "avx2");
  }
  const bool may = isa.empty() || isa == "AVX512_CORE_BF16" || isa == "AVX512_CORE_AMX";
  EXPECT_EQ(multiplies_bf16(), may && processor_has("avx512_bf16"));
}

class EveryForm : public ::testing::TestWithParam<std::tuple<DType, bool, int64_t>> {};

// Against sums in double, with guards behind each row of the result.
TEST_P(EveryForm, MatchesDouble) {
  const auto& [type, has_bias, gap] = GetParam();
  if (type == DType::kBF16 && !multiplies_bf16()) GTEST_SKIP() << "no bf16 products here";
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  OnednnProducts products;
  for (const auto& [rows, cols, inner] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 33, 65}, {256, 64, 64}, {256, 256, 1024}}) {
    const int64_t stride = inner + gap, out_stride = cols + gap;
    const auto numbers = [&](int64_t count) {
      std::vector<float> values(static_cast<std::size_t>(count));
      for (float& value : values) value = normal(random);
      return values;
    };
    std::vector<float> x = numbers(rows * stride), w = numbers(cols * stride), bias = numbers(cols);
    std::vector<uint16_t> x_bits(x.size()), w_bits(w.size());
    if (type == DType::kBF16) {
      for (auto [values, bits] : {std::pair{&x, &x_bits}, std::pair{&w, &w_bits}}) {
        from_f32(values->data(), type, bits->data(), static_cast<int64_t>(values->size()));
        to_f32(bits->data(), type, values->data(), static_cast<int64_t>(values->size()));
      }
    }
    std::vector<float> out(static_cast<std::size_t>(rows * out_stride), 99.0f);
    const bool bf16 = type == DType::kBF16;
    products.run({rows, cols, inner, stride, stride, out_stride, type, has_bias},
                 bf16 ? static_cast<const void*>(x_bits.data()) : x.data(),
                 bf16 ? static_cast<const void*>(w_bits.data()) : w.data(), has_bias ? bias.data() : nullptr,
                 out.data());
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        double expected = has_bias ? bias[static_cast<std::size_t>(j)] : 0.0, magnitude = 1.0;
        for (int64_t k = 0; k < inner; ++k) {
          const double product = double{x[static_cast<std::size_t>(i * stride + k)]} *
                                 double{w[static_cast<std::size_t>(j * stride + k)]};
          expected += product;
          magnitude += std::abs(product);
        }
        // What f32 sums of so many products can be off by, in any order.
        ASSERT_NEAR(out[static_cast<std::size_t>(i * out_stride + j)], expected,
                    magnitude * 0x1p-23 * static_cast<double>(inner + 2));
      }
      for (int64_t j = cols; j < out_stride; ++j)
        ASSERT_EQ(out[static_cast<std::size_t>(i * out_stride + j)], 99.0f) << "written past the row";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OnednnProducts, EveryForm,
                         ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16), ::testing::Bool(),
                                            ::testing::Values(int64_t{0}, int64_t{3}, int64_t{512})));

}  // namespace
}  // namespace kva
