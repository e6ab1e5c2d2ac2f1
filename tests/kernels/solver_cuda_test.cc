// Matrices and rows on bases by CUDA, cuBLAS and cuSOLVER. Skips without a device.
#include <gtest/gtest.h>

#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/solver_case.h"

namespace kva {
namespace {

using SolverCuda = CudaFixture;

TEST_F(SolverCuda, Products) { expect_products(*device); }
TEST_F(SolverCuda, OrthonormalRows) { expect_orthonormal_rows(*device); }
TEST_F(SolverCuda, Eigenvectors) { expect_eigenvectors(*device); }
TEST_F(SolverCuda, NormalNumbers) { expect_normals(*device); }
TEST_F(SolverCuda, RowsAsMatrices) { expect_widened_rows(*device); }
TEST_F(SolverCuda, Coefficients) { expect_projection(*device); }
TEST_F(SolverCuda, RefusesWhatF16CannotHold) { expect_refused_projection(*device); }

}  // namespace
}  // namespace kva
