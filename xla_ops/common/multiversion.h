// PJX_MULTIVERSION compiles a function for several x86-64 levels and picks one when the module is loaded, so that a
// wheel for any x86-64 CPU uses AVX-512 or AVX2 where there is one. For plain (non-template) static functions; what
// they inline is compiled for their level too. Needs GCC (11 or newer knows the levels) and ELF's ifunc.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11 && defined(__x86_64__) && defined(__gnu_linux__)
#define PJX_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PJX_MULTIVERSION
#endif
