// Matrices and rows on bases on the lanes' device: the checks that CUDA's is given (solver_cuda_test.cc), and
// that these checks can be passed.
#include <gtest/gtest.h>

#include "tests/kernels/lane_device.h"
#include "tests/kernels/solver_case.h"

namespace kva {
namespace {

const std::unique_ptr<DeviceOps>& lanes() {
  static const std::unique_ptr<DeviceOps> device = make_lane_device(1 << 26);
  return device;
}

TEST(SolverLanes, Products) { expect_products(*lanes()); }
TEST(SolverLanes, OrthonormalRows) { expect_orthonormal_rows(*lanes()); }
TEST(SolverLanes, Eigenvectors) { expect_eigenvectors(*lanes()); }
TEST(SolverLanes, NormalNumbers) { expect_normals(*lanes()); }
TEST(SolverLanes, RowsAsMatrices) { expect_widened_rows(*lanes()); }
TEST(ProjectionLanes, Coefficients) { expect_projection(*lanes()); }
TEST(ProjectionLanes, RefusesWhatF16CannotHold) { expect_refused_projection(*lanes()); }

}  // namespace
}  // namespace kva
