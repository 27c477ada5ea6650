// The state set's priority heap on the CPU, in place: a binary min-heap of slot ids and its inverse. Few elements
// change per call, each costs O(log M), and one thread per lane is enough. Priorities compare by their bits, which
// order non-negative floats rightly even where the CPU reads denormals as zero.
#include <cstring>
#include <limits>

#include "xla_ops/common/ffi.h"
#include "xla_ops/common/float_bits.h"

namespace pjx {
namespace {

constexpr int32_t kInfinity = 0x7F800000;

int32_t FloatBits(float x) { return static_cast<int32_t>(BitsOf(x)); }

// NaN and negative scores count as 0, +infinity as the largest finite number.
float CleanScore(float score) {
  const int32_t bits = FloatBits(score);
  if (bits < 0 || bits > kInfinity) return 0.0f;
  return bits == kInfinity ? std::numeric_limits<float>::max() : score;
}

// What is below 2^-126 counts as 0 here: whether the CPU keeps it depends on the thread.
float Decayed(float priority, float decay) {
  constexpr int32_t kSmallestNormal = 0x00800000;
  if (FloatBits(priority) < kSmallestNormal || FloatBits(decay) < kSmallestNormal) return 0.0f;
  const float product = priority * decay;
  return FloatBits(product) < kSmallestNormal ? 0.0f : product;
}

// A view of one lane. The arrays come from the user, so whatever indexes memory is checked when it is read; `corrupt`
// then names the culprit and the call fails instead of leaving its buffers.
struct Heap {
  float* priorities;
  int32_t* heap;
  int32_t* positions;
  int32_t size;
  const char* corrupt = nullptr;

  int32_t SlotAt(int32_t position) {
    const int32_t slot = heap[position];
    if (slot >= 0 && slot < size) return slot;
    corrupt = "heap";
    return 0;
  }
  int32_t PositionOf(int32_t slot) {
    const int32_t position = positions[slot];
    if (position >= 0 && position < size && heap[position] == slot) return position;
    corrupt = "heap_position";
    return 0;
  }
  // Ties go by slot id, so that the minimum is unique and no result depends on the layout of the heap.
  bool Below(int32_t slot_a, int32_t slot_b) const {
    const int32_t a = FloatBits(priorities[slot_a]), b = FloatBits(priorities[slot_b]);
    return a != b ? a < b : slot_a < slot_b;
  }
  void Place(int32_t slot, int32_t position) {
    heap[position] = slot;
    positions[slot] = position;
  }
  // Moves `slot`, whose place `position` is, to where it belongs.
  void Sift(int32_t slot, int32_t position) {
    while (position > 0) {
      const int32_t parent = (position - 1) / 2, other = SlotAt(parent);
      if (!Below(slot, other)) break;
      Place(other, position);
      position = parent;
    }
    for (int64_t child = 2 * int64_t{position} + 1; child < size; child = 2 * int64_t{position} + 1) {
      int32_t lower = static_cast<int32_t>(child), other = SlotAt(lower);
      if (child + 1 < size) {
        const int32_t right = SlotAt(lower + 1);
        if (Below(right, other)) ++lower, other = right;
      }
      if (!Below(other, slot)) break;
      Place(other, position);
      position = lower;
    }
    Place(slot, position);
  }
};

// Why a lane cannot be worked on: what is corrupt in it, or else its size.
ffi::Error Refused(const char* op, const Heap& heap, int64_t capacity) {
  if (!heap.corrupt) return InvalidArgument(op, ": size must be in [0, ", capacity, "], got ", heap.size);
  return InvalidArgument(op, ": ", heap.corrupt, " is corrupt: heap must hold each slot id in [0, ", heap.size,
                         ") once, and heap_position must be its inverse");
}

// priorities f32[..., M], heap and heap_position i32[..., M], size i32[...], slots i32[..., K], scores f32[..., K],
// decay f32[...], mask bool[..., K]; the first three are aliased to the results.
ffi::Error RescoreCpu(ffi::Buffer<ffi::F32> priorities_in, ffi::Buffer<ffi::S32> heap_in,
                      ffi::Buffer<ffi::S32> heap_position_in, ffi::Buffer<ffi::S32> size, ffi::Buffer<ffi::S32> slots,
                      ffi::Buffer<ffi::F32> scores, ffi::Buffer<ffi::F32> decay, ffi::Buffer<ffi::PRED> mask,
                      ffi::ResultBuffer<ffi::F32> priorities, ffi::ResultBuffer<ffi::S32> heap_out,
                      ffi::ResultBuffer<ffi::S32> heap_position) {
  const char* op = "state_heap_rescore";
  const auto dims = priorities->dimensions(), slot_dims = slots.dimensions();
  if (dims.size() < 1) return InvalidArgument(op, ": priorities must be [..., M], got a scalar");
  if (slot_dims.size() < 1) return InvalidArgument(op, ": slots must be [..., K], got a scalar");
  const int64_t lanes = LeadingSize(dims, 1), capacity = dims[dims.size() - 1];
  const int64_t num_slots = slot_dims[slot_dims.size() - 1];
  const int64_t entries = lanes * capacity, changes = lanes * num_slots;
  if (auto error = CheckCounts(op, {{"priorities", priorities_in.element_count(), entries},
                                    {"priorities", priorities->element_count(), entries},
                                    {"heap", heap_in.element_count(), entries},
                                    {"heap", heap_out->element_count(), entries},
                                    {"heap_position", heap_position_in.element_count(), entries},
                                    {"heap_position", heap_position->element_count(), entries},
                                    {"size", size.element_count(), lanes},
                                    {"slots", slots.element_count(), changes},
                                    {"scores", scores.element_count(), changes},
                                    {"decay", decay.element_count(), lanes},
                                    {"mask", mask.element_count(), changes}});
      error.failure()) {
    return error;
  }
  CopyUnlessAliased(priorities_in, priorities);
  CopyUnlessAliased(heap_in, heap_out);
  CopyUnlessAliased(heap_position_in, heap_position);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    Heap heap{priorities->typed_data() + lane * capacity, heap_out->typed_data() + lane * capacity,
              heap_position->typed_data() + lane * capacity, size.typed_data()[lane]};
    if (heap.size < 0 || heap.size > capacity) return Refused(op, heap, capacity);
    const float factor = decay.typed_data()[lane];
    if (!(factor >= 0 && factor <= 1)) {
      return InvalidArgument(op, ": decay must be a finite number in [0, 1], got ", factor);
    }
    for (int64_t k = lane * num_slots; k < (lane + 1) * num_slots && !heap.corrupt; ++k) {
      if (!mask.typed_data()[k]) continue;
      const int32_t slot = slots.typed_data()[k];
      if (slot < 0 || slot >= heap.size) {
        return InvalidArgument(op, ": slots must be in [0, size) = [0, ", heap.size, ") where mask is True, got ", slot,
                               " at position ", k % num_slots);
      }
      const float old = heap.priorities[slot], score = CleanScore(scores.typed_data()[k]);
      heap.priorities[slot] = FloatBits(score) >= FloatBits(old) ? score : Decayed(old, factor);
      heap.Sift(slot, heap.PositionOf(slot));
    }
    if (heap.corrupt) return Refused(op, heap, capacity);
  }
  return ffi::Error::Success();
}

// snapshots u8[..., M, S], priorities f32[..., M], heap and heap_position i32[..., M], size i32[...], rows
// u8[..., C, S], scores f32[..., C], mask bool[..., C]; the first five are aliased to the results.
ffi::Error InsertCpu(ffi::Buffer<ffi::U8> snapshots_in, ffi::Buffer<ffi::F32> priorities_in,
                     ffi::Buffer<ffi::S32> heap_in, ffi::Buffer<ffi::S32> heap_position_in,
                     ffi::Buffer<ffi::S32> size_in, ffi::Buffer<ffi::U8> rows, ffi::Buffer<ffi::F32> scores,
                     ffi::Buffer<ffi::PRED> mask, ffi::ResultBuffer<ffi::U8> snapshots,
                     ffi::ResultBuffer<ffi::F32> priorities, ffi::ResultBuffer<ffi::S32> heap_out,
                     ffi::ResultBuffer<ffi::S32> heap_position, ffi::ResultBuffer<ffi::S32> size) {
  const char* op = "state_heap_insert";
  const auto dims = snapshots->dimensions(), row_dims = rows.dimensions();
  if (dims.size() < 2) return InvalidArgument(op, ": snapshots must be [..., M, S], got ", ShapeText(dims));
  if (row_dims.size() < 2) return InvalidArgument(op, ": rows must be [..., C, S], got ", ShapeText(row_dims));
  const int64_t lanes = LeadingSize(dims, 2), capacity = dims[dims.size() - 2], row_bytes = dims[dims.size() - 1];
  const int64_t num_rows = row_dims[row_dims.size() - 2];
  const int64_t entries = lanes * capacity, candidates = lanes * num_rows;
  if (auto error = CheckCounts(op, {{"snapshots", snapshots_in.element_count(), entries * row_bytes},
                                    {"snapshots", snapshots->element_count(), entries * row_bytes},
                                    {"priorities", priorities_in.element_count(), entries},
                                    {"priorities", priorities->element_count(), entries},
                                    {"heap", heap_in.element_count(), entries},
                                    {"heap", heap_out->element_count(), entries},
                                    {"heap_position", heap_position_in.element_count(), entries},
                                    {"heap_position", heap_position->element_count(), entries},
                                    {"size", size_in.element_count(), lanes},
                                    {"size", size->element_count(), lanes},
                                    {"rows", rows.element_count(), candidates * row_bytes},
                                    {"scores", scores.element_count(), candidates},
                                    {"mask", mask.element_count(), candidates}});
      error.failure()) {
    return error;
  }
  CopyUnlessAliased(snapshots_in, snapshots);
  CopyUnlessAliased(priorities_in, priorities);
  CopyUnlessAliased(heap_in, heap_out);
  CopyUnlessAliased(heap_position_in, heap_position);
  CopyUnlessAliased(size_in, size);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    Heap heap{priorities->typed_data() + lane * capacity, heap_out->typed_data() + lane * capacity,
              heap_position->typed_data() + lane * capacity, size->typed_data()[lane]};
    if (heap.size < 0 || heap.size > capacity) return Refused(op, heap, capacity);
    uint8_t* lane_snapshots = snapshots->typed_data() + lane * capacity * row_bytes;
    for (int64_t c = lane * num_rows; c < (lane + 1) * num_rows && capacity > 0 && !heap.corrupt; ++c) {
      if (!mask.typed_data()[c]) continue;
      const float score = CleanScore(scores.typed_data()[c]);
      int32_t slot, position = 0;
      if (heap.size < capacity) {
        slot = position = heap.size++;
        heap.Place(slot, position);
      } else {
        slot = heap.SlotAt(0);
        if (FloatBits(score) <= FloatBits(heap.priorities[slot])) continue;
      }
      heap.priorities[slot] = score;
      heap.Sift(slot, position);
      if (row_bytes > 0) std::memcpy(lane_snapshots + slot * row_bytes, rows.typed_data() + c * row_bytes, row_bytes);
    }
    if (heap.corrupt) return Refused(op, heap, capacity);
    size->typed_data()[lane] = heap.size;
  }
  return ffi::Error::Success();
}

PJX_REGISTER("pufferjax.state_heap.rescore", HandlerOf<RescoreCpu>);

PJX_REGISTER("pufferjax.state_heap.insert", HandlerOf<InsertCpu>);

}  // namespace
}  // namespace pjx
