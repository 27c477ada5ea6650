// A MinGRU cell and its highway, forwards and backwards, on the CPU and the GPU (op.py has the formulas). F: float, for
// one element, or a vector of floats, for as many.
#pragma once

#include "xla_ops/common/sigmoid.h"

namespace pjx {

template <typename F>
struct MingruGates {
  F c, z, s;  // candidate, gate of the state, gate of the highway
};

// The candidate state. The lower branch stays below 1/2, so the activation tells which branch it came from.
template <typename F>
PJX_HD_INLINE F Candidate(F h_in) {
  const F low = Sigmoid(h_in), below = F{} + 0.49999997f;
  const F lower = low >= 0.5f ? below : low;
  return h_in >= 0.0f ? h_in + 0.5f : lower;
}

template <typename F>
PJX_HD_INLINE MingruGates<F> GatesOf(F h_in, F g, F p) {
  return {Candidate(h_in), Sigmoid(g), Sigmoid(p)};
}

// h_t; across a reset `previous` is 0.
template <typename F>
PJX_HD_INLINE F NextState(const MingruGates<F>& gates, F previous) {
  return (1.0f - gates.z) * previous + gates.z * gates.c;
}

// y_t
template <typename F>
PJX_HD_INLINE F Highway(const MingruGates<F>& gates, F h, F x) {
  return gates.s * h + (1.0f - gates.s) * x;
}

template <typename F>
struct MingruCotangents {
  F h_in, g, p;
  F x;         // by way of the highway
  F previous;  // if there is no reset
};

// `later` is what the later steps send back to h_t.
template <typename F>
PJX_HD_INLINE MingruCotangents<F> CellBackward(const MingruGates<F>& gates, F x, F previous, F h, F y_bar, F later) {
  const F c = gates.c, z = gates.z, s = gates.s;
  const F h_bar = y_bar * s + later;
  const F c_bar = h_bar * z;
  const F low_bar = c_bar * (c * (1.0f - c));
  const F z_bar = h_bar * (c - previous);
  const F s_bar = y_bar * (h - x);
  return {c >= 0.5f ? c_bar : low_bar, z_bar * (z * (1.0f - z)), s_bar * (s * (1.0f - s)), y_bar * (1.0f - s),
          h_bar * (1.0f - z)};
}

}  // namespace pjx
