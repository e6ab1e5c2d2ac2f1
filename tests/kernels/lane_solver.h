// The linear algebra of kernels/solver_lanes.h by BLAS and LAPACK, for the lanes' device: all addresses are
// the host's.
#pragma once

#include "kernels/solver_lanes.h"

namespace kva {

void solve_on_host(const MatrixProduct& product);
void solve_on_host(const OrthonormalJob& job);
void solve_on_host(const EigenJob& job);

}  // namespace kva
