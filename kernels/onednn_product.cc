#include "kernels/onednn_product.h"

#include <dnnl.hpp>
#include <map>
#include <tuple>
#include <unordered_map>

#include "kernels/check.h"

namespace kva {
namespace {

// Primitives a thread keeps; making one again costs microseconds.
constexpr std::size_t kMaxPrimitives = 256;

const dnnl::engine& engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

struct Primitive {
  dnnl::matmul run;
  dnnl::memory::desc x, weights, bias, out;
};

Primitive make_primitive(const ProductForm& f) {
  using dnnl::memory;
  const auto type = f.type == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc x({f.rows, f.inner}, type, memory::dims{f.x_stride, 1});
  const memory::desc weights({f.inner, f.cols}, type, memory::dims{1, f.weights_stride});
  const memory::desc bias({1, f.cols}, memory::data_type::f32, memory::dims{f.cols, 1});
  const memory::desc out({f.rows, f.cols}, memory::data_type::f32, memory::dims{f.out_stride, 1});
  const dnnl::matmul::desc desc =
      f.bias ? dnnl::matmul::desc(x, weights, bias, out) : dnnl::matmul::desc(x, weights, out);
  return {dnnl::matmul(dnnl::matmul::primitive_desc(desc, engine())), x, weights, bias, out};
}

bool try_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto bf16 = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  if ((isa & bf16) != bf16) return false;
  try {
    make_primitive({256, 64, 64, 64, 64, 64, DType::kBF16, true});
    return true;
  } catch (const dnnl::error&) {  // oneDNN may know the instructions and still have no such product
    return false;
  }
}

}  // namespace

bool ProductForm::operator<(const ProductForm& other) const {
  const auto key = [](const ProductForm& f) {
    return std::tie(f.rows, f.cols, f.inner, f.x_stride, f.weights_stride, f.out_stride, f.type, f.bias);
  };
  return key(*this) < key(other);
}

bool multiplies_bf16() {
  static const bool found = try_bf16();
  return found;
}

struct OnednnProducts::Impl {
  dnnl::stream stream{engine()};
  std::map<ProductForm, Primitive> primitives;
};

OnednnProducts::OnednnProducts() : impl_(std::make_unique<Impl>()) {}
OnednnProducts::OnednnProducts(OnednnProducts&&) noexcept = default;
OnednnProducts::~OnednnProducts() = default;

void OnednnProducts::run(const ProductForm& form, const void* x, const void* weights, const float* bias,
                         float* out) {
  KVA_CHECK(form.bias == (bias != nullptr), "a bias where the form has one");
  auto& primitives = impl_->primitives;
  auto found = primitives.find(form);
  if (found == primitives.end()) {
    if (primitives.size() >= kMaxPrimitives) primitives.clear();
    found = primitives.emplace(form, make_primitive(form)).first;
  }
  const Primitive& primitive = found->second;
  // oneDNN takes inputs through mutable pointers but only reads them.
  const auto memory = [&](const dnnl::memory::desc& desc, const void* data) {
    return dnnl::memory(desc, engine(), const_cast<void*>(data));
  };
  std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, memory(primitive.x, x)},
                                                  {DNNL_ARG_WEIGHTS, memory(primitive.weights, weights)},
                                                  {DNNL_ARG_DST, memory(primitive.out, out)}};
  if (bias) arguments.emplace(DNNL_ARG_BIAS, memory(primitive.bias, bias));
  primitive.run.execute(impl_->stream, arguments);
}

}  // namespace kva
