// one_hot_linear on the GPU; the bodies of the kernels and what they do are in kernels.h.
#include "xla_ops/common/cuda.h"
#include "xla_ops/one_hot_linear/handlers.h"
#include "xla_ops/one_hot_linear/kernels.h"

namespace pjx {
namespace {

const char* const kOp = "one_hot_linear";

template <bool kIsAligned>
__global__ void __launch_bounds__(OneHotForward<kIsAligned>::kThreads)
    Forward(const __grid_constant__ OneHotForwardArgs args) {
  using Block = OneHotForward<kIsAligned>;
  __shared__ typename Block::Shared shared;
  Block::Run(Team<Block::kThreads>{}, args, blockIdx.x, shared);
}

template <bool kIsAligned>
__global__ void __launch_bounds__(OneHotPartSums<kIsAligned>::kThreads, 2)
    PartSums(const __grid_constant__ OneHotBackwardArgs args) {
  using Block = OneHotPartSums<kIsAligned>;
  __shared__ typename Block::Shared shared;
  Block::Run(Team<Block::kThreads>{}, args, blockIdx.x, shared);
}

__global__ void __launch_bounds__(OneHotAddParts::kThreads)
    AddParts(const __grid_constant__ OneHotBackwardArgs args, int64_t size) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * OneHotAddParts::kThreads + threadIdx.x;
  if (index < size) OneHotAddParts::Run(args, index);
}

ffi::Error CheckAxes(Dimensions lanes) {
  if (lanes.size() <= Lanes::kMaxAxes) return ffi::Error::Success();
  return InvalidArgument(kOp, ": at most ", Lanes::kMaxAxes, " mapped axes on a GPU, got ", ShapeText(lanes));
}

bool IsAligned(const OneHotSizes& sizes) { return sizes.num_hidden % HiddenTiles::kVec == 0; }

// As OneHotLinearFwdCpu, except that a code above K contributes nothing.
ffi::Error OneHotLinearFwdCuda(cudaStream_t stream, ffi::Buffer<ffi::U8> x, ffi::Buffer<ffi::F32> weight,
                               ffi::Buffer<ffi::F32> bias, ffi::ResultBuffer<ffi::F32> y) {
  const auto dims = y->dimensions();
  OneHotForwardArgs args{};
  OneHotSizes& sizes = args.sizes;
  auto error = CheckOneHotForward(x.dimensions(), weight.dimensions(), bias.dimensions(), dims, &sizes);
  if (error.failure()) return error;
  const auto lead = dims.first(dims.size() - 2);
  if (error = CheckAxes(lead); error.failure()) return error;
  args.lanes = LanesOf(lead.begin(), static_cast<int64_t>(lead.size()));
  args.x =
      ArrayOfLanes<const uint8_t>(x.typed_data(), x.dimensions().begin(), args.lanes, sizes.num_rows * sizes.num_cells);
  args.weight = ArrayOfLanes<const float>(weight.typed_data(), weight.dimensions().begin(), args.lanes, sizes.table());
  args.bias = ArrayOfLanes<const float>(bias.typed_data(), bias.dimensions().begin(), args.lanes, sizes.num_hidden);
  args.y = y->typed_data();
  using Block = OneHotForward<true>;
  return Launch(kOp, stream, IsAligned(sizes) ? Forward<true> : Forward<false>, Block::Blocks(args), Block::kThreads,
                args);
}
PJX_REGISTER("pufferjax.one_hot_linear.fwd", HandlerOf<OneHotLinearFwdCuda, ffi::Traits::kCmdBufferCompatible>);

// As OneHotLinearBwdCpu, except that a code above K contributes nothing, and with memory for the sums of as many parts
// of the rows as it has along its third axis from the last: scratch [..., parts, C K + 1, H].
ffi::Error OneHotLinearBwdCuda(cudaStream_t stream, ffi::Buffer<ffi::U8> x, ffi::Buffer<ffi::F32> cotangent,
                               ffi::ResultBuffer<ffi::F32> dweight, ffi::ResultBuffer<ffi::F32> dbias,
                               ffi::ResultBuffer<ffi::F32> scratch) {
  const auto dims = dweight->dimensions(), scratch_dims = scratch->dimensions();
  OneHotBackwardArgs args{};
  OneHotSizes& sizes = args.sizes;
  auto error = CheckOneHotBackward(x.dimensions(), cotangent.dimensions(), dims, dbias->dimensions(), &sizes);
  if (error.failure()) return error;
  const auto lead = dims.first(dims.size() - 3);
  if (error = CheckAxes(lead); error.failure()) return error;
  args.lanes = LanesOf(lead.begin(), static_cast<int64_t>(lead.size()));
  args.num_parts = scratch_dims.size() < 3 ? 0 : scratch_dims[scratch_dims.size() - 3];
  const int64_t size = args.lanes.count * OneHotAddParts::Size(args);
  if (args.num_parts < 1 || static_cast<int64_t>(scratch->element_count()) != args.num_parts * size) {
    return InvalidArgument(kOp, ": scratch must be [..., parts, ", args.table_rows(), ", ", sizes.num_hidden,
                           "] with parts >= 1, got ", ShapeText(scratch_dims));
  }
  args.x =
      ArrayOfLanes<const uint8_t>(x.typed_data(), x.dimensions().begin(), args.lanes, sizes.num_rows * sizes.num_cells);
  args.cotangent = ArrayOfLanes<const float>(cotangent.typed_data(), cotangent.dimensions().begin(), args.lanes,
                                             sizes.num_rows * sizes.num_hidden);
  args.sums = scratch->typed_data();
  args.dweight = dweight->typed_data();
  args.dbias = dbias->typed_data();
  using Block = OneHotPartSums<true>;
  error = Launch(kOp, stream, IsAligned(sizes) ? PartSums<true> : PartSums<false>, Block::Blocks(args), Block::kThreads,
                 args);
  if (error.failure()) return error;
  return Launch(kOp, stream, AddParts, CeilDivide(size, OneHotAddParts::kThreads), OneHotAddParts::kThreads, args,
                size);
}
PJX_REGISTER("pufferjax.one_hot_linear.bwd.scratch", HandlerOf<OneHotLinearBwdCuda, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
