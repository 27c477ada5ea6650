// Vector code in a module that must run on any machine of its architecture.
#pragma once

// PJX_MULTIVERSION before a plain function (no template, no lambda) compiles it for AVX-512, AVX2 and the baseline; the
// loader picks one when the module is loaded. Functions called inside must be PJX_INLINE, or they stay baseline code.
// All versions give the same bits: the build forbids contraction (-ffp-contract=off) and nothing here reassociates.
// Only where the mechanism (GNU ifunc) exists: GCC 12 or later, x86-64, glibc. __GLIBC__ comes with any C++ header.
#include <cstdint>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__ELF__) && \
    defined(__GLIBC__)
#define PJX_X86_LEVELS  // also by hand: one function for target("default"), its namesake for target("arch=x86-64-v4")
#define PJX_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PJX_MULTIVERSION
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PJX_INLINE inline __attribute__((always_inline))
#else
#define PJX_INLINE inline
#endif
