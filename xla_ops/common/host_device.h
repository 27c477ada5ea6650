// PJX_HD marks a function that runs on the CPU and, compiled by nvcc, on the GPU. Includes nothing but <cstdint>.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PJX_HD __host__ __device__ inline
#else
#define PJX_HD inline
#endif
