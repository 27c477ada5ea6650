// One element of a MinGRU cell and its highway, forwards and backwards, on the CPU and the GPU (op.py has the
// formulas).
#pragma once

#include "xla_ops/common/sigmoid.h"

namespace pjx {

struct MingruGates {
  float c, z, s;  // candidate, gate of the state, gate of the highway
};

// The candidate state. The lower branch stays below 1/2, so the activation tells which branch it came from.
PJX_HD_INLINE float Candidate(float h_in) {
  const float low = Sigmoid(h_in), high = h_in + 0.5f;
  return h_in >= 0.0f ? high : low >= 0.5f ? 0.49999997f : low;
}

PJX_HD_INLINE MingruGates GatesOf(float h_in, float g, float p) { return {Candidate(h_in), Sigmoid(g), Sigmoid(p)}; }

// h_t; across a reset `previous` is 0.
PJX_HD_INLINE float NextState(const MingruGates& gates, float previous) {
  return (1.0f - gates.z) * previous + gates.z * gates.c;
}

// y_t
PJX_HD_INLINE float Highway(const MingruGates& gates, float h, float x) { return gates.s * h + (1.0f - gates.s) * x; }

struct MingruCotangents {
  float h_in, g, p;
  float x;         // by way of the highway
  float previous;  // if there is no reset
};

// `later` is what the later steps send back to h_t.
PJX_HD_INLINE MingruCotangents CellBackward(const MingruGates& gates, float x, float previous, float h, float y_bar,
                                            float later) {
  const float c = gates.c, z = gates.z, s = gates.s;
  const float h_bar = y_bar * s + later;
  const float c_bar = h_bar * z;
  const float low_bar = c_bar * (c * (1.0f - c));
  const float z_bar = h_bar * (c - previous);
  const float s_bar = y_bar * (h - x);
  return {c >= 0.5f ? c_bar : low_bar, z_bar * (z * (1.0f - z)), s_bar * (s * (1.0f - s)), y_bar * (1.0f - s),
          h_bar * (1.0f - z)};
}

}  // namespace pjx
