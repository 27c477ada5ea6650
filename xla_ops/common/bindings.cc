// The native module: a table of FFI handlers and of simulator descriptions. Compiled into _cpu and into _cuda.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "xla_ops/common/cpu_level.h"
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/multiply_add.h"

#ifndef PJX_MODULE_NAME
#define PJX_MODULE_NAME _cpu
#endif

namespace py = pybind11;

PYBIND11_MODULE(PJX_MODULE_NAME, module) {
  module.doc() = "pufferjax's native handlers; use pufferjax.xla_ops and pufferjax.envs, not this module.";
  module.def("registrations", [] {
    const auto capsule = [](pjx::Handler* handler) { return py::capsule(reinterpret_cast<void*>(handler)); };
    py::dict table;
    for (const auto& [target, handler] : pjx::Handlers()) table[target.c_str()] = capsule(handler);
    // A target of several stages is a dict of them, as jax.ffi.register_ffi_target takes it.
    for (const auto& [target, initializer] : pjx::Initializers()) {
      py::dict stages;
      stages["initialize"] = capsule(initializer);
      stages["execute"] = table[target.c_str()];
      table[target.c_str()] = stages;
    }
    return table;
  });
  module.def("instruction_set", [] { return std::string(pjx::NameOf(pjx::LevelInUse())); });
  module.def(
      "limit_instruction_set",
      [](const std::string& level) {
        if (!pjx::LimitLevel(level)) throw py::value_error("no level of instructions named '" + level + "'");
      },
      py::arg("level"));
  module.def("multiply_add_speed", &pjx::MultiplyAddSpeed, py::arg("seconds"),
             py::call_guard<py::gil_scoped_release>());
  module.def("limit_threads", [](int64_t limit) { pjx::ThreadLimit() = limit; }, py::arg("limit"));
  module.def(
      "describe",
      [](const std::string& env, const std::vector<int64_t>& params) {
        const auto found = pjx::Descriptions().find(env);
        if (found == pjx::Descriptions().end()) throw py::key_error("no native simulator named '" + env + "'");
        const pjx::EnvDescription description = found->second(params);
        if (!description.error.empty()) throw py::value_error(description.error);
        py::dict result;
        result["obs_shape"] = py::tuple(py::cast(description.obs_shape));
        result["obs_dtype"] = description.obs_dtype;
        result["num_actions"] = py::tuple(py::cast(description.num_actions));
        result["action_low"] = py::tuple(py::cast(description.action_low));
        result["action_high"] = py::tuple(py::cast(description.action_high));
        result["num_agents"] = description.num_agents;
        result["state_bytes"] = description.state_bytes;
        result["max_episode_steps"] = description.max_episode_steps;
        return result;
      },
      py::arg("env"), py::arg("params"));
}
