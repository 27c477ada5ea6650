// How an op or a simulator makes its handlers known: one PJX_REGISTER line per target, at namespace scope.
// The module's `registrations()` hands the whole table to Python (xla_ops/ffi.py), which registers it with XLA.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace pjx {

using Handler = XLA_FFI_Error*(XLA_FFI_CallFrame*);

// Static numbers of a simulator for given parameters, read by Python instead of being typed a second time.
struct EnvDescription {
  std::string error;  // empty, or why the parameters are refused
  std::vector<int64_t> obs_shape;
  std::string obs_dtype;
  std::vector<int64_t> num_actions;  // of each head; none where actions are numbers, whose bounds these are:
  std::vector<float> action_low, action_high;
  int64_t num_agents = 1;
  int64_t state_bytes = 0;
  int64_t max_episode_steps = 0;
};
using Describe = std::function<EnvDescription(const std::vector<int64_t>& params)>;

inline std::map<std::string, Handler*>& Handlers() {
  static std::map<std::string, Handler*> handlers;
  return handlers;
}

// Of targets that have something to prepare on a device before every execution of a program that calls them.
inline std::map<std::string, Handler*>& Initializers() {
  static std::map<std::string, Handler*> initializers;
  return initializers;
}

inline std::map<std::string, Describe>& Descriptions() {
  static std::map<std::string, Describe> descriptions;
  return descriptions;
}

struct Registrar {
  Registrar(const char* target, Handler* handler) { Handlers()[target] = handler; }
  Registrar(const char* env, Describe describe) { Descriptions()[env] = std::move(describe); }
};

#define PJX_CONCAT_(a, b) a##b
#define PJX_CONCAT(a, b) PJX_CONCAT_(a, b)
#define PJX_REGISTER(target, ...) \
  static const ::pjx::Registrar PJX_CONCAT(pjx_registrar_, __COUNTER__)(target, __VA_ARGS__)

}  // namespace pjx
