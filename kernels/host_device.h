// Marks what CPU and CUDA code share, so that CPU tests exercise what the GPU runs.
#pragma once

#if defined(__CUDACC__)
#define KVA_HOST_DEVICE __host__ __device__
// Code of one lane of a warp: for the device; compiled without nvcc, for a warp whose lanes the host runs.
#define KVA_LANE_CODE __device__
// Code that is rare: called, so that it takes no registers from what is not.
#define KVA_RARE_CODE __device__ __noinline__
// Of loops over registers: an index that is no constant would move the array to memory.
#define KVA_UNROLL _Pragma("unroll")
// Of loops whose bodies, all at once, would want too many registers.
#define KVA_UNROLL_TWICE _Pragma("unroll 2")
#else
#define KVA_HOST_DEVICE
#define KVA_LANE_CODE
#define KVA_RARE_CODE
#define KVA_UNROLL
#define KVA_UNROLL_TWICE
#endif
