// The state set's priority heap on the CPU, in place: a binary min-heap of slot ids and its inverse. Few elements
// change per call, each costs O(log M), and one thread per lane is enough. Priorities compare by their bits, which
// order non-negative floats rightly even where the CPU reads denormals as zero.
#include <cstring>

#include "xla_ops/common/ffi.h"

namespace pjx {
namespace {

constexpr int32_t kInfinity = 0x7F800000;

int32_t FloatBits(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

float BitsFloat(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// NaN and negative scores count as 0, +infinity as the largest finite number.
float CleanScore(float score) {
  const int32_t bits = FloatBits(score);
  if (bits < 0 || bits > kInfinity) return 0.0f;
  return bits == kInfinity ? BitsFloat(kInfinity - 1) : score;
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

// XLA has aliased the two already; this only holds the promise if a caller did not.
template <typename Operand, typename Result>
void CopyUnlessAliased(const Operand& operand, Result& result) {
  if (operand.untyped_data() != result->untyped_data() && operand.size_bytes() > 0) {
    std::memcpy(result->untyped_data(), operand.untyped_data(), operand.size_bytes());
  }
}

using Counts = std::initializer_list<std::tuple<const char*, size_t, int64_t>>;

ffi::Error CheckCounts(const char* op, const Counts& counts) {
  for (const auto& [name, count, expected] : counts) {
    if (static_cast<int64_t>(count) != expected) {
      return InvalidArgument(op, ": ", name, " has ", count, " elements, expected ", expected);
    }
  }
  return ffi::Error::Success();
}

ffi::Error BadSize(const char* op, int64_t capacity, int32_t size) {
  return InvalidArgument(op, ": size must be in [0, ", capacity, "], got ", size);
}

ffi::Error Corrupt(const char* op, const Heap& heap) {
  return InvalidArgument(op, ": ", heap.corrupt, " is corrupt: heap must hold each slot id in [0, ", heap.size,
                         ") once, and heap_position must be its inverse");
}

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
  if (ffi::Error error = CheckCounts(op, {{"priorities", priorities_in.element_count(), lanes * capacity},
                                          {"heap", heap_in.element_count(), lanes * capacity},
                                          {"heap", heap_out->element_count(), lanes * capacity},
                                          {"heap_position", heap_position_in.element_count(), lanes * capacity},
                                          {"heap_position", heap_position->element_count(), lanes * capacity},
                                          {"size", size.element_count(), lanes},
                                          {"slots", slots.element_count(), lanes * num_slots},
                                          {"scores", scores.element_count(), lanes * num_slots},
                                          {"decay", decay.element_count(), lanes},
                                          {"mask", mask.element_count(), lanes * num_slots}});
      error.failure()) {
    return error;
  }
  CopyUnlessAliased(priorities_in, priorities);
  CopyUnlessAliased(heap_in, heap_out);
  CopyUnlessAliased(heap_position_in, heap_position);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    Heap heap{priorities->typed_data() + lane * capacity, heap_out->typed_data() + lane * capacity,
              heap_position->typed_data() + lane * capacity, size.typed_data()[lane]};
    if (heap.size < 0 || heap.size > capacity) return BadSize(op, capacity, heap.size);
    const float factor = decay.typed_data()[lane];
    if (!(factor >= 0 && factor <= 1)) {
      return InvalidArgument(op, ": decay must be a finite number in [0, 1], got ", factor);
    }
    const int32_t* lane_slots = slots.typed_data() + lane * num_slots;
    const float* lane_scores = scores.typed_data() + lane * num_slots;
    const bool* lane_mask = mask.typed_data() + lane * num_slots;
    for (int64_t k = 0; k < num_slots; ++k) {
      if (!lane_mask[k]) continue;
      const int32_t slot = lane_slots[k];
      if (slot < 0 || slot >= heap.size) {
        return InvalidArgument(op, ": slots must be in [0, size) = [0, ", heap.size, ") where mask is True, got ", slot,
                               " at position ", k);
      }
      const float old = heap.priorities[slot], score = CleanScore(lane_scores[k]);
      const int32_t position = heap.PositionOf(slot);
      if (heap.corrupt) return Corrupt(op, heap);
      heap.priorities[slot] = FloatBits(score) >= FloatBits(old) ? score : Decayed(old, factor);
      heap.Sift(slot, position);
      if (heap.corrupt) return Corrupt(op, heap);
    }
  }
  return ffi::Error::Success();
}

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
  if (ffi::Error error = CheckCounts(op, {{"snapshots", snapshots_in.element_count(), lanes * capacity * row_bytes},
                                          {"priorities", priorities_in.element_count(), lanes * capacity},
                                          {"priorities", priorities->element_count(), lanes * capacity},
                                          {"heap", heap_in.element_count(), lanes * capacity},
                                          {"heap", heap_out->element_count(), lanes * capacity},
                                          {"heap_position", heap_position_in.element_count(), lanes * capacity},
                                          {"heap_position", heap_position->element_count(), lanes * capacity},
                                          {"size", size_in.element_count(), lanes},
                                          {"size", size->element_count(), lanes},
                                          {"rows", rows.element_count(), lanes * num_rows * row_bytes},
                                          {"scores", scores.element_count(), lanes * num_rows},
                                          {"mask", mask.element_count(), lanes * num_rows}});
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
    if (heap.size < 0 || heap.size > capacity) return BadSize(op, capacity, heap.size);
    uint8_t* lane_snapshots = snapshots->typed_data() + lane * capacity * row_bytes;
    const uint8_t* lane_rows = rows.typed_data() + lane * num_rows * row_bytes;
    const float* lane_scores = scores.typed_data() + lane * num_rows;
    const bool* lane_mask = mask.typed_data() + lane * num_rows;
    for (int64_t c = 0; c < num_rows; ++c) {
      if (!lane_mask[c]) continue;
      const float score = CleanScore(lane_scores[c]);
      int32_t slot, position;
      if (heap.size < capacity) {
        slot = position = heap.size++;
        heap.Place(slot, position);
      } else {
        if (heap.size == 0) break;  // no capacity at all
        slot = heap.SlotAt(position = 0);
        if (heap.corrupt) return Corrupt(op, heap);
        if (FloatBits(score) <= FloatBits(heap.priorities[slot])) continue;
      }
      heap.priorities[slot] = score;
      heap.Sift(slot, position);
      if (heap.corrupt) return Corrupt(op, heap);
      if (row_bytes > 0) std::memcpy(lane_snapshots + slot * row_bytes, lane_rows + c * row_bytes, row_bytes);
    }
    size->typed_data()[lane] = heap.size;
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(Rescore, RescoreCpu,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // priorities [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // heap [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // heap_position [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // size [...]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // slots [..., K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // scores [..., K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // decay [...]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // mask [..., K]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // priorities, aliased
                                  .Ret<ffi::Buffer<ffi::S32>>()   // heap, aliased
                                  .Ret<ffi::Buffer<ffi::S32>>()   // heap_position, aliased
);
PJX_REGISTER("pufferjax.state_heap.rescore", Rescore);

XLA_FFI_DEFINE_HANDLER_SYMBOL(Insert, InsertCpu,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::U8>>()    // snapshots [..., M, S]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // priorities [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // heap [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // heap_position [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()   // size [...]
                                  .Arg<ffi::Buffer<ffi::U8>>()    // rows [..., C, S]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // scores [..., C]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // mask [..., C]
                                  .Ret<ffi::Buffer<ffi::U8>>()    // snapshots, aliased
                                  .Ret<ffi::Buffer<ffi::F32>>()   // priorities, aliased
                                  .Ret<ffi::Buffer<ffi::S32>>()   // heap, aliased
                                  .Ret<ffi::Buffer<ffi::S32>>()   // heap_position, aliased
                                  .Ret<ffi::Buffer<ffi::S32>>()   // size, aliased
);
PJX_REGISTER("pufferjax.state_heap.insert", Insert);

}  // namespace
}  // namespace pjx
