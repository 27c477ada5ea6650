// Calls every CPU handler without Python and XLA around it, for `make sanitize`: on our own threads ThreadSanitizer
// knows which accesses are ordered (inside XLA, which is not instrumented, it would report races that are none), and
// on exact heap blocks AddressSanitizer sees a write one past the end of a buffer.
//
// Each case runs on one thread and on several, with updated operands copied and in place; the results must be the same
// to the last bit. A handler without a case is an error: add a function below and name it in main.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "xla_ops/common/cpu_level.h"
#include "xla_ops/common/ffi.h"

struct XLA_FFI_Error {
  std::string message;
};

// XLA's handle of a call's surroundings is opaque to handlers; ours is a thread pool.
struct XLA_FFI_ExecutionContext {
  explicit XLA_FFI_ExecutionContext(int num_threads) {
    for (int i = 0; i < num_threads; ++i) threads.emplace_back([this] { Work(); });
  }
  ~XLA_FFI_ExecutionContext() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
  void Schedule(XLA_FFI_Task* task, void* data) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      queue.emplace_back(task, data);
    }
    wake.notify_one();
  }
  void Work() {
    for (;;) {
      std::pair<XLA_FFI_Task*, void*> next;
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [this] { return stopping || !queue.empty(); });
        if (queue.empty()) return;
        next = queue.front();
        queue.pop_front();
      }
      next.first(next.second);
    }
  }

  std::vector<std::thread> threads;
  std::deque<std::pair<XLA_FFI_Task*, void*>> queue;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
};

namespace pjx {
namespace {

XLA_FFI_Error* CreateError(XLA_FFI_Error_Create_Args* args) { return new XLA_FFI_Error{args->message}; }
void GetMessage(XLA_FFI_Error_GetMessage_Args* args) { args->message = args->error->message.c_str(); }
void DestroyError(XLA_FFI_Error_Destroy_Args* args) { delete args->error; }
XLA_FFI_Error* Schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  args->ctx->Schedule(args->task, args->data);
  return nullptr;
}
XLA_FFI_Error* NumThreads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  *args->num_threads = static_cast<int64_t>(args->ctx->threads.size());
  return nullptr;
}

const XLA_FFI_Api* Api() {
  static const XLA_FFI_Api api = [] {
    XLA_FFI_Api api{};
    api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
    api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
    api.XLA_FFI_Error_Create = CreateError;
    api.XLA_FFI_Error_GetMessage = GetMessage;
    api.XLA_FFI_Error_Destroy = DestroyError;
    api.XLA_FFI_ThreadPool_Schedule = Schedule;
    api.XLA_FFI_ThreadPool_NumThreads = NumThreads;
    return api;
  }();
  return &api;
}

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "drive_handlers: %s\n", what.c_str());
  std::exit(1);
}

// A tensor in a heap block of exactly its size, aligned like XLA's.
struct Tensor {
  XLA_FFI_DataType dtype;
  std::vector<int64_t> dims;
  std::shared_ptr<uint8_t> data;

  Tensor(XLA_FFI_DataType dtype, std::vector<int64_t> dims) : dtype(dtype), dims(std::move(dims)) {
    void* block = nullptr;
    if (posix_memalign(&block, 64, Bytes()) != 0) Fail("out of memory");
    std::memset(block, 0, Bytes());
    data = std::shared_ptr<uint8_t>(static_cast<uint8_t*>(block), std::free);
  }
  int64_t Count() const {
    int64_t count = 1;
    for (const int64_t dim : dims) count *= dim;
    return count;
  }
  size_t Bytes() const {
    const bool is_byte = dtype == XLA_FFI_DataType_U8 || dtype == XLA_FFI_DataType_PRED;
    const bool is_half = dtype == XLA_FFI_DataType_U16 || dtype == XLA_FFI_DataType_BF16;
    return static_cast<size_t>(Count()) * (is_byte ? 1 : is_half ? 2 : 4);
  }
  Tensor Copy() const {
    Tensor copy(dtype, dims);
    std::memcpy(copy.data.get(), data.get(), Bytes());
    return copy;
  }
  template <typename T>
  T* As() {
    return reinterpret_cast<T*>(data.get());
  }
};

std::mt19937& Random() {
  static std::mt19937 random(1);
  return random;
}
Tensor Floats(std::vector<int64_t> dims, float low, float high) {
  Tensor x(XLA_FFI_DataType_F32, std::move(dims));
  std::uniform_real_distribution<float> number(low, high);
  for (int64_t i = 0; i < x.Count(); ++i) x.As<float>()[i] = number(Random());
  return x;
}
Tensor Bfloat16s(std::vector<int64_t> dims, float low, float high) {
  Tensor halves(XLA_FFI_DataType_BF16, dims), x = Floats(std::move(dims), low, high);
  for (int64_t i = 0; i < x.Count(); ++i) halves.As<uint16_t>()[i] = x.As<uint16_t>()[2 * i + 1];  // the upper halves
  return halves;
}
Tensor Ints(std::vector<int64_t> dims, int32_t low, int32_t high) {
  Tensor x(XLA_FFI_DataType_S32, std::move(dims));
  std::uniform_int_distribution<int32_t> number(low, high);
  for (int64_t i = 0; i < x.Count(); ++i) x.As<int32_t>()[i] = number(Random());
  return x;
}
Tensor Bytes(std::vector<int64_t> dims, int high) {
  Tensor x(XLA_FFI_DataType_U8, std::move(dims));
  std::uniform_int_distribution<int> number(0, high);
  for (int64_t i = 0; i < x.Count(); ++i) x.As<uint8_t>()[i] = static_cast<uint8_t>(number(Random()));
  return x;
}
Tensor Flags(std::vector<int64_t> dims, double share) {
  Tensor x(XLA_FFI_DataType_PRED, std::move(dims));
  std::bernoulli_distribution flag(share);
  for (int64_t i = 0; i < x.Count(); ++i) x.As<bool>()[i] = flag(Random());
  return x;
}
Tensor Words(std::vector<int64_t> dims) {
  Tensor x(XLA_FFI_DataType_U32, std::move(dims));
  for (int64_t i = 0; i < x.Count(); ++i) x.As<uint32_t>()[i] = Random()();
  return x;
}
Tensor Counting(int64_t count) {
  Tensor x(XLA_FFI_DataType_S32, {count});
  for (int64_t i = 0; i < count; ++i) x.As<int32_t>()[i] = static_cast<int32_t>(i);
  return x;
}

struct Shape {
  XLA_FFI_DataType dtype;
  std::vector<int64_t> dims;
};
Shape F32(std::vector<int64_t> dims) { return {XLA_FFI_DataType_F32, std::move(dims)}; }
Shape I32(std::vector<int64_t> dims) { return {XLA_FFI_DataType_S32, std::move(dims)}; }
Shape U8(std::vector<int64_t> dims) { return {XLA_FFI_DataType_U8, std::move(dims)}; }
Shape Pred(std::vector<int64_t> dims) { return {XLA_FFI_DataType_PRED, std::move(dims)}; }

struct Attributes {
  std::vector<int64_t> params;                             // empty: the handler takes none
  std::vector<std::pair<std::string, int64_t>> scalars{};  // i64
};

std::set<std::string>& Driven() {
  static std::set<std::string> driven;
  return driven;
}

XLA_FFI_Buffer BufferOf(Tensor& x) {
  return {XLA_FFI_Buffer_STRUCT_SIZE,          nullptr,      x.dtype, x.data.get(),
          static_cast<int64_t>(x.dims.size()), x.dims.data()};
}

// One call; the message of the handler's error, empty if there was none.
std::string CallOnce(const std::string& target, std::vector<Tensor>& operands, std::vector<Tensor>& results,
                     const Attributes& attributes, int num_threads) {
  XLA_FFI_ExecutionContext context(num_threads);
  std::vector<XLA_FFI_Buffer> buffers;
  for (Tensor& x : operands) buffers.push_back(BufferOf(x));
  for (Tensor& x : results) buffers.push_back(BufferOf(x));
  std::vector<void*> pointers;
  for (XLA_FFI_Buffer& buffer : buffers) pointers.push_back(&buffer);
  std::vector<XLA_FFI_ArgType> arg_types(operands.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> ret_types(results.size(), XLA_FFI_RetType_BUFFER);

  // Attributes come in the order of their names.
  struct Attribute {
    std::string name;
    XLA_FFI_AttrType type;
    XLA_FFI_Array array{};
    XLA_FFI_Scalar scalar{};
    XLA_FFI_ByteSpan span{};
  };
  std::vector<int64_t> params = attributes.params, values;
  std::vector<Attribute> list;
  for (const auto& [name, value] : attributes.scalars) values.push_back(value);
  for (size_t i = 0; i < values.size(); ++i) {
    list.push_back({attributes.scalars[i].first, XLA_FFI_AttrType_SCALAR});
    list.back().scalar = {XLA_FFI_DataType_S64, &values[i]};
  }
  if (!params.empty()) {
    list.push_back({"params", XLA_FFI_AttrType_ARRAY});
    list.back().array = {XLA_FFI_DataType_S64, params.size(), params.data()};
  }
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<XLA_FFI_AttrType> attr_types;
  std::vector<XLA_FFI_ByteSpan*> names;
  std::vector<void*> attr_values;
  for (Attribute& x : list) {
    x.span = {x.name.data(), x.name.size()};
    attr_types.push_back(x.type);
    names.push_back(&x.span);
    attr_values.push_back(x.type == XLA_FFI_AttrType_ARRAY ? static_cast<void*>(&x.array) : &x.scalar);
  }

  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = Api();
  frame.ctx = &context;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, static_cast<int64_t>(operands.size()), arg_types.data(),
                pointers.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, static_cast<int64_t>(results.size()), ret_types.data(),
                pointers.data() + operands.size()};
  frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr,      static_cast<int64_t>(list.size()),
                 attr_types.data(),         names.data(), attr_values.data()};
  const auto found = Handlers().find(target);
  if (found == Handlers().end()) Fail("no handler " + target);
  Driven().insert(target);
  std::string message;
  if (XLA_FFI_Error* error = found->second(&frame)) {
    message = error->message;
    delete error;
  }
  return message;
}

// Calls `target` on 1 and on 4 threads, copying and in place. aliases[i]: the operand that result i updates, or -1.
// Returns the results.
std::vector<Tensor> Call(const std::string& target, const std::vector<Tensor>& operands,
                         const std::vector<Shape>& shapes, const Attributes& attributes = {},
                         std::vector<int> aliases = {}) {
  aliases.resize(shapes.size(), -1);
  std::vector<Tensor> expected;
  for (const int num_threads : {1, 4}) {
    for (const bool in_place : {false, true}) {
      std::vector<Tensor> own, results;
      for (const Tensor& x : operands) own.push_back(x.Copy());
      for (size_t i = 0; i < shapes.size(); ++i) {
        results.push_back(in_place && aliases[i] >= 0 ? own[aliases[i]] : Tensor(shapes[i].dtype, shapes[i].dims));
      }
      const std::string message = CallOnce(target, own, results, attributes, num_threads);
      if (!message.empty()) Fail(target + ": " + message);
      if (expected.empty()) {
        expected = results;
        continue;
      }
      for (size_t i = 0; i < results.size(); ++i) {
        if (std::memcmp(results[i].data.get(), expected[i].data.get(), results[i].Bytes()) != 0) {
          Fail(target + ": result " + std::to_string(i) + " depends on the number of threads or on aliasing");
        }
      }
    }
  }
  return expected;
}

// --- the cases: odd sizes for loop remainders, large ones so that the work is split
// ------------------------------------

void GaeVtrace() {
  for (const auto& [t, n] : {std::pair<int64_t, int64_t>{1, 1}, {3, 37}, {70, 4099}}) {
    std::vector<Tensor> operands = {Floats({t, n}, -1, 1), Floats({t, n}, -1, 1), Floats({n}, -1, 1),
                                    Flags({t, n}, 0.1), Floats({t, n}, 0, 2)};
    for (const float scalar : {0.99f, 0.95f, 1.0f, 1.0f}) operands.push_back(Floats({}, scalar, scalar));
    Call("pufferjax.gae_vtrace", operands, {F32({t, n})});
  }
}

void Threefry() {
  for (const int64_t count : {0, 1, 37, 200'003}) {
    const Shape bits{XLA_FFI_DataType_U32, {count}};
    for (const std::vector<int64_t>& keys : {std::vector<int64_t>{}, {count}}) {  // one for all counters, one each
      Call("pufferjax.threefry2x32", {Words(keys), Words(keys), Words({count}), Words({count})}, {bits, bits});
    }
  }
}

void LinearRecurrence() {
  struct Size {
    int64_t t, r, k;
  };
  for (const auto& [t, r, k] : {Size{1, 1, 1}, {5, 3, 7}, {33, 517, 19}, {17, 9001, 1}}) {
    for (const bool has_reset : {false, true}) {
      for (const bool is_narrow : {false, true}) {
        const int64_t rows = has_reset ? r : r * k, columns = has_reset ? k : 1;  // as op.py passes them
        const auto numbers = is_narrow ? Bfloat16s : Floats;
        const std::string suffix = is_narrow ? ".bf16" : "";
        const Tensor a = numbers({t, rows, columns}, -1, 1), b = numbers({t, rows, columns}, -1, 1);
        const Tensor h0 = numbers({rows, columns}, -1, 1);
        const Tensor reset = has_reset ? Flags({t, rows}, 0.1) : Flags({0}, 0);
        const Shape table{a.dtype, a.dims}, row{h0.dtype, h0.dims};
        const auto h = Call("pufferjax.linear_recurrence" + suffix, {a, b, h0, reset}, {table});
        Call("pufferjax.linear_recurrence.bwd" + suffix, {a, h[0], h0, reset, b}, {table, table, row});
      }
    }
  }
}

void MingruLayer() {
  struct Size {
    int64_t t, b, h;
  };
  for (const auto& [t, b, h] : {Size{1, 1, 1}, {3, 5, 17}, {9, 301, 40}}) {
    for (const bool has_reset : {false, true}) {
      const Tensor x = Floats({t, b, h}, -1, 1), kernel = Floats({h, 3 * h}, -1, 1), h0 = Floats({b, h}, -1, 1);
      const Tensor reset = has_reset ? Flags({t, b}, 0.1) : Flags({0}, 0);
      const Shape table = F32({t, b, h}), row = F32({b, h});
      const Shape gates = F32({t, b, 3 * h}), square = F32({h, 3 * h});
      Call("pufferjax.mingru_layer", {x, kernel, h0, reset}, {table, row});
      const auto saved = Call("pufferjax.mingru_layer.fwd", {x, kernel, h0, reset}, {table, table, gates});
      Call("pufferjax.mingru_layer.bwd", {x, kernel, h0, reset, saved[1], saved[2], x, h0}, {table, square, row});
    }
  }
}

void OneHotLinear() {
  struct Size {
    int64_t r, c, k, h;
  };
  for (const auto& [r, c, k, h] : {Size{1, 1, 1, 1}, {7, 3, 255, 5}, {1037, 122, 5, 64}, {200, 11, 4, 33}}) {
    const Tensor x = Bytes({r, c}, static_cast<int>(k)), weight = Floats({c, k, h}, -1, 1);
    const auto y = Call("pufferjax.one_hot_linear.fwd", {x, weight, Floats({h}, -1, 1)}, {F32({r, h})});
    Call("pufferjax.one_hot_linear.bwd", {x, y[0]}, {F32({c, k, h}), F32({h})});
  }
}

// Entities with and without a first layer, of both types, absent ones among them.
void Entities() {
  struct Size {
    int64_t r, n, d, p, h;
  };
  for (const auto& [r, n, d, p, h] : {Size{1, 1, 1, 1, 1}, {300, 17, 5, 16, 33}, {70, 257, 19, 18, 50}}) {
    for (const auto type : {XLA_FFI_DataType_F32, XLA_FFI_DataType_BF16}) {
      for (const bool has_mask : {false, true}) {
        const Tensor x = (type == XLA_FFI_DataType_BF16 ? Bfloat16s : Floats)({r, n, d}, -1, 1);
        const Tensor mask = has_mask ? Flags({r, n}, 0.5) : Flags({0, 0}, 0);
        const Tensor w1 = Floats({d, p}, -1, 1), b1 = Floats({p}, -1, 1);
        const Tensor w2 = Floats({p, h}, -1, 1), b2 = Floats({h}, -1, 1);
        const Shape y = F32({r, h}), w1_bar = F32({d, p}), b1_bar = F32({p});
        const Shape winner = {n <= 256 ? XLA_FFI_DataType_U8 : XLA_FFI_DataType_U16, {r, h}};
        const Attributes passes{{}, {{"passes", 3}}};
        Call("pufferjax.entity_encoder", {x, w1, b1, w2, b2, mask}, {y}, passes);
        auto saved = Call("pufferjax.entity_encoder.fwd", {x, w1, b1, w2, b2, mask}, {y, winner}, passes);
        Call("pufferjax.entity_encoder.bwd", {x, w1, b1, w2, mask, saved[1], saved[0]},
             {{type, {r, n, d}}, w1_bar, b1_bar, F32({p, h}), F32({h})});

        const Shape first_y = F32({r, p}), first_winner = {winner.dtype, {r, p}};
        Call("pufferjax.linear_max", {x, w1, b1, mask}, {first_y}, passes);
        saved = Call("pufferjax.linear_max.fwd", {x, w1, b1, mask}, {first_y, first_winner}, passes);
        Call("pufferjax.linear_max.bwd", {x, w1, mask, saved[1], saved[0]}, {{type, {r, n, d}}, w1_bar, b1_bar});

        // Numbers of no entity must be refused, never followed out of bounds.
        std::memset(saved[1].data.get(), 0xff, saved[1].Bytes());
        std::vector<Tensor> operands = {x, w1, mask, saved[1], saved[0]}, results;
        for (const Shape& shape : {Shape{type, {r, n, d}}, w1_bar, b1_bar})
          results.emplace_back(shape.dtype, shape.dims);
        if (CallOnce("pufferjax.linear_max.bwd", operands, results, {}, 2).empty()) Fail("a winner beyond N passed");
      }
    }
  }
}

void PrioritizedSample() {
  for (const auto& [m, k] : {std::pair<int64_t, int64_t>{1, 1}, {37, 5}, {300007, 50021}}) {
    for (const float alpha : {0.0f, 1.0f, 0.7f}) {
      const auto size = static_cast<int32_t>(m);
      Call("pufferjax.prioritized_sample",
           {Words({k, 2}), Floats({m}, 0, 1), Ints({}, size, size), Floats({}, alpha, alpha)}, {I32({k}), F32({k})});
    }
  }
}

void StateHeap() {
  for (const auto& [m, c] : {std::pair<int64_t, int64_t>{1, 3}, {13, 40}, {500, 700}}) {
    const int64_t s = 37;
    const auto set = Call("pufferjax.state_heap.insert",
                          {Bytes({m, s}, 0), Floats({m}, 0, 0), Counting(m), Counting(m), Ints({}, 0, 0),
                           Bytes({c, s}, 255), Floats({c}, 0, 1), Flags({c}, 0.8)},
                          {U8({m, s}), F32({m}), I32({m}), I32({m}), I32({})}, {}, {0, 1, 2, 3, 4});
    Tensor size = set[4];
    const int32_t last = size.As<int32_t>()[0] - 1;
    Call("pufferjax.state_heap.rescore",
         {set[1], set[2], set[3], set[4], Ints({c}, 0, last), Floats({c}, 0, 1), Floats({}, 0.9f, 0.9f),
          Flags({c}, 0.8)},
         {F32({m}), I32({m}), I32({m})}, {}, {0, 1, 2});
  }
}

// A call whose operands may be refused: it must end, whatever it says.
void Survive(const std::string& target, std::vector<Tensor> operands, const std::vector<Shape>& shapes,
             const Attributes& attributes) {
  std::vector<Tensor> results;
  for (const Shape& shape : shapes) results.emplace_back(shape.dtype, shape.dims);
  CallOnce(target, operands, results, attributes, 2);
}

// Every function that all simulators have, on `n` of them; returns the states it ends in.
Tensor DriveEnv(const std::string& env, const std::vector<int64_t>& params, int64_t n) {
  const EnvDescription facts = Descriptions().at(env)(params);
  if (!facts.error.empty()) Fail(facts.error);
  const std::string prefix = "pufferjax." + env + ".";
  const int64_t s = facts.state_bytes;
  const bool are_numbers = facts.num_actions.empty();
  const auto heads = static_cast<int64_t>(are_numbers ? facts.action_low.size() : facts.num_actions.size());
  const auto states = [&](int64_t count) { return U8({count, s}); };
  const auto observations = [&](int64_t count) {
    std::vector<int64_t> dims = {count * facts.num_agents};
    dims.insert(dims.end(), facts.obs_shape.begin(), facts.obs_shape.end());
    return facts.obs_dtype == "uint8" ? U8(dims) : F32(dims);
  };
  const auto outputs = [&](int64_t count) {
    const int64_t agents = count * facts.num_agents;
    return std::vector<Shape>{states(count), observations(count), F32({agents}), Pred({agents}), Pred({agents}),
                              F32({count}),  I32({count}),        F32({count}),  F32({count})};
  };
  const auto actions = [&](int64_t count) {
    if (are_numbers) {
      Tensor x(XLA_FFI_DataType_F32, {count * facts.num_agents, heads});
      for (int64_t i = 0; i < x.Count(); ++i) {
        const float share = static_cast<float>(Random()() % 1025) / 1024;
        x.As<float>()[i] = facts.action_low[i % heads] * (1 - share) + facts.action_high[i % heads] * share;
      }
      return x;
    }
    Tensor x = Ints({count * facts.num_agents, heads}, 0, 0);
    for (int64_t i = 0; i < x.Count(); ++i) x.As<int32_t>()[i] = Random()() % facts.num_actions[i % heads];
    return x;
  };
  Tensor state = Call(prefix + "reset", {Words({2})}, {states(n), observations(n)}, {params})[0];
  state = Call(prefix + "stagger", {Words({2}), state}, {states(n)}, {params}, {1})[0];
  for (int t = 0; t < 8; ++t) {
    state = Call(prefix + "step", {Words({2}), state, actions(n)}, outputs(n), {params}, {1})[0];
  }
  const int64_t snapshots = 3;
  state = Call(prefix + "random_walk", {Words({2}), state},
               {states(n), U8({n, snapshots, s}), I32({n}), I32({n}), U8({n, snapshots, s})},
               {params, {{"interval", 4}, {"num_steps", 300}}}, {1})[0];
  Call(prefix + "observe", {state}, {observations(n)}, {params});
  Call(prefix + "clock", {state}, {I32({n}), states(n)}, {params});
  Tensor rows(XLA_FFI_DataType_U8, {10, s});
  std::memcpy(rows.data.get(), state.data.get(), rows.Bytes());
  Call(prefix + "restore", {state, rows, Ints({10}, 0, static_cast<int32_t>(n) - 1)}, {states(n)}, {params}, {0});

  // Bytes that no simulator wrote, alone or in one place of a state, must be refused or survived, never followed out of
  // bounds.
  for (int i = 0; i < 400; ++i) {
    Tensor garbage = Bytes({4, s}, i % 2 ? 255 : 3);
    if (i % 4 > 1) {
      const uint8_t byte = garbage.data.get()[0];
      std::memcpy(garbage.data.get(), state.data.get(), garbage.Bytes());
      for (int64_t row = 0; row < 4; ++row) garbage.data.get()[row * s + i / 4 % s] = byte;
    }
    Survive(prefix + "observe", {garbage}, {observations(4)}, {params});
    Survive(prefix + "clock", {garbage}, {I32({4}), states(4)}, {params});
    Survive(prefix + "restore", {state, garbage, Counting(4)}, {states(n)}, {params});
    Tensor wrong = Ints({4 * facts.num_agents, heads}, -9, 9);
    if (are_numbers) wrong.dtype = XLA_FFI_DataType_F32;  // of their bits: tiny numbers and NaN
    Survive(prefix + "step", {Words({2}), garbage, i % 3 ? actions(4) : wrong}, outputs(4), {params});
  }
  return state;
}

void MazeEnv() {
  for (const std::vector<int64_t>& params : {std::vector<int64_t>{5, 0, 7, 3}, {9, 16, 1, 11}, {35, 3, 2, 31}}) {
    const int64_t size = params[0], n = size == 35 ? 301 : 1501;
    const Tensor state = DriveEnv("maze", params, n);
    Call("pufferjax.maze.inspect", {state}, {U8({n, size, size}), I32({n, 4})}, {params});
    for (int i = 0; i < 200; ++i) {
      Survive("pufferjax.maze.inspect", {Bytes({4, state.dims[1]}, i % 2 ? 255 : 3)},
              {U8({4, size, size}), I32({4, 4})}, {params});
    }
  }
}

void MinimalEnv() {
  for (const int64_t max_steps : {0, 40}) DriveEnv("minimal", {max_steps}, 301);
}

void SmallEnvs() {
  for (const int64_t length : {1, 128, 512}) DriveEnv("password", {length}, 1501);
  for (const int64_t num_states : {3, 128, 256}) DriveEnv("chain_mdp", {num_states}, 1501);
  for (const int64_t scaffolding : {0, 1 << 23}) DriveEnv("g2048", {scaffolding}, 1501);
  for (const int64_t size : {5, 19, 49}) DriveEnv("four_rooms", {size}, 1501);
}

void MiniGridEnvs() {
  // One of each family, the largest grids and rooms among them; short episodes, so that levels are drawn.
  for (const std::vector<int64_t>& params : std::vector<std::vector<int64_t>>{{0, 5, 1, 0, 1, 30, 1, 0, 0},
                                                                              {1, 16, 1, 0, 0, 30, 0, 0, 0},
                                                                              {2, 10, 1, 6, 0, 30, 0, 0, 0},
                                                                              {2, 4, 1, 12, 0, 60, 0, 0, 0},
                                                                              {3, 3, 1, 0, 0, 30, 0, 0, 0},
                                                                              {3, 6, 3, 0, 0, 30, 0, 0, 0},
                                                                              {4, 6, 1, 0, 0, 30, 0, 0, 0},
                                                                              {5, 6, 1, 0, 0, 30, 0, 0, 0},
                                                                              {6, 6, 1, 0, 0, 30, 0, 0, 0},
                                                                              {7, 6, 1, 0, 3, 30, 0, 0, 0},
                                                                              {7, 6, 1, 4, 7, 30, 0, 0, 0},
                                                                              {8, 15, 1, 6, 0, 30, 0, 0, 0},
                                                                              {9, 8, 1, 0, 0, 30, 0, 7, 9}}) {
    DriveEnv("minigrid", params, 301);
  }
}

void BreakoutEnv() {
  DriveEnv("breakout", {4, 10'000, 1}, 1501);
  DriveEnv("breakout", {1, 200, 0}, 301);
  DriveEnv("breakout_steered", {4, 200, 0}, 301);
}

void BoxobanEnv() {
  DriveEnv("boxoban", {16, 1, 20, 60, 0x3E800000, 0, 0xBF800000, 0}, 1501);
  DriveEnv("boxoban", {1, 7, 1, 1, 0, 0, 0, 1}, 301);
}

// Many short loops: the caller must not return while a helper still works for it.
void ShortLoops() {
  for (int i = 0; i < 300; ++i) {
    Call("pufferjax.maze.reset", {Words({2})},
         {U8({64, Descriptions().at("maze")({5, 4, 7, 3}).state_bytes}), U8({64, 3, 3})}, {{5, 4, 7, 3}});
  }
}

int Main() {
  // Ops at every level of vector instructions that this machine has, the highest last; simulators with that.
  for (const CpuLevel level : {CpuLevel::kBaseline, CpuLevel::kAvx2, CpuLevel::kAvx512}) {
    if (level > HighestLevel()) break;
    LimitLevel(NameOf(level));
    for (const auto& run :
         {GaeVtrace, Threefry, LinearRecurrence, MingruLayer, OneHotLinear, Entities, PrioritizedSample}) {
      run();
    }
  }
  for (const auto& run : {StateHeap, MazeEnv, MinimalEnv, SmallEnvs, MiniGridEnvs, BreakoutEnv, BoxobanEnv, ShortLoops})
    run();
  std::string missing;
  for (const auto& [target, handler] : Handlers()) {
    if (!Driven().count(target)) missing += " " + target;
  }
  if (!missing.empty()) Fail("no case for" + missing);
  std::printf("drive_handlers: %zu handlers up to %s, no findings\n", Driven().size(), NameOf(HighestLevel()));
  return 0;
}

}  // namespace
}  // namespace pjx

int main() { return pjx::Main(); }
