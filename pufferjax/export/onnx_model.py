"""A network as an ONNX model: pip install 'pufferjax[onnx]'.

One step of N agents, N free. Inputs: observations f32[N, D], flat; previous f32[N, P] and, in a recurrent policy,
memory f32[L, N, H], see `Network`. Outputs: logits f32[N, all choices], means f32[N, numbers] in the policy's units,
value f32[N], new_memory. Whoever plays it draws the actions, as `numpy_player.Player.act` does, and remembers them.
"""

import json
import os

import numpy as np

from pufferjax.export.network import Network
from pufferjax.runs.files import write_atomically

_OPSET = 17


def write_onnx(network: Network, path: str | os.PathLike) -> None:
    """Atomic; the model is checked first. Raises ImportError without the package onnx, OSError."""
    import onnx

    model = onnx_model(network)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString())


def onnx_model(network: Network):
    """The onnx.ModelProto of a network; its metadata "pufferjax" is the description as JSON."""
    import onnx

    graph = _Graph(network)
    graph.build()
    model = onnx.helper.make_model(
        graph.proto(onnx), opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=8, producer_name="pufferjax"
    )
    model.metadata_props.add(key="pufferjax", value=json.dumps(network.description))
    return model


class _Graph:
    def __init__(self, network: Network):
        self.description, self.arrays = network.description, dict(network.arrays)
        self.nodes: list[tuple[str, list[str], list[str], dict]] = []
        self.memories = sum(layer["kind"] == "mingru" for layer in self.description["layers"])

    def op(self, kind: str, *inputs: str, name: str = "", **attributes) -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append((kind, list(inputs), [name], attributes))
        return name

    def constant(self, value, dtype=np.float32) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = np.asarray(value, dtype)
        return name

    def slice(self, x: str, begin: int, end: int) -> str:
        return self.op("Slice", x, *(self.constant([i], np.int64) for i in (begin, end, -1)))

    def linear(self, x: str, layer: dict) -> str:
        y = self.op("MatMul", x, layer["kernel"])
        return self.op("Add", y, layer["bias"]) if "bias" in layer else y

    def one_hot(self, x: str, layer: dict) -> str:
        cells, num_codes, hidden = self.arrays[layer["table"]].shape
        codes = self.op("Unsqueeze", x, self.constant([-1], np.int64))
        hot = self.op("Cast", self.op("Equal", codes, self.constant(np.arange(1, num_codes + 1))), to=1)
        table = self.constant(self.arrays[layer["table"]].reshape(cells * num_codes, hidden))
        hot = self.op("Reshape", hot, self.constant([-1, cells * num_codes], np.int64))
        return self.op("Add", self.op("MatMul", hot, table), layer["bias"])

    def entity(self, x: str, layer: dict) -> str:
        num_self, size = layer["num_self"], layer["entity_size"]
        entities = self.slice(x, num_self, layer["end"] - layer["begin"])
        count = (layer["end"] - layer["begin"] - num_self) // size
        entities = self.op("Reshape", entities, self.constant([-1, count, size], np.int64))
        units = self.op("Add", self.op("MatMul", entities, layer["entity_kernel"]), layer["entity_bias"])
        scores = self.op("MatMul", self.op("Relu", units), layer["kernel"])
        h = self.op("Add", self.op("ReduceMax", scores, axes=[1], keepdims=0), layer["bias"])
        if num_self:
            h = self.op("Add", h, self.op("MatMul", self.slice(x, 0, num_self), layer["self_kernel"]))
        return h

    def mingru(self, x: str, layer: dict, number: int) -> tuple[str, str]:
        hidden = self.description["hidden_size"]
        gates = self.op("MatMul", x, layer["kernel"])
        u, write, skip = (self.slice(gates, i * hidden, (i + 1) * hidden) for i in range(3))
        is_positive = self.op("GreaterOrEqual", u, self.constant(0.0))
        u = self.op("Where", is_positive, self.op("Add", u, self.constant(0.5)), self.op("Sigmoid", u))
        memory = self.op("Gather", "memory", self.constant(number, np.int64), axis=0)
        moved = self.op("Mul", self.op("Sigmoid", write), self.op("Sub", u, memory))
        memory = self.op("Add", memory, moved)
        y = self.op("Add", x, self.op("Mul", self.op("Sigmoid", skip), self.op("Sub", memory, x)))
        return y, memory

    def build(self) -> None:
        d = self.description
        x = "observations"
        if "norm_mean" in self.arrays:
            x = self.op("Mul", self.op("Sub", x, "norm_mean"), "norm_factor")
            x = self.op("Max", self.op("Min", x, "norm_high"), "norm_low")
        x = self.op("Concat", x, "previous", axis=1)
        h = ""
        for layer in d["encoders"]:
            part = getattr(self, layer["kind"])(self.slice(x, layer["begin"], layer["end"]), layer)
            part = self.op("Mul", part, self.constant(layer["scale"]))
            h = self.op("Add", h, part) if h else part
        memories = []
        for layer in d["layers"]:
            if layer["kind"] == "dense":
                h = self.linear(self.op("Relu", h), layer)
            else:
                h, memory = self.mingru(h, layer, len(memories))
                memories.append(self.op("Unsqueeze", memory, self.constant([0], np.int64)))
        out = self.linear(h, d["decoder"])
        ends = np.cumsum([0, sum(d["num_actions"]), d["num_numbers"], 1])
        for name, begin, end in zip(("logits", "means", "values"), ends[:-1], ends[1:], strict=True):
            if end > begin:
                self.op("Slice", out, *(self.constant([i], np.int64) for i in (begin, end, -1)), name=name)
        self.op("Squeeze", "values", self.constant([1], np.int64), name="value")
        if memories:
            self.op("Concat", *memories, axis=0, name="new_memory")

    def proto(self, onnx):
        d, n = self.description, "agents"
        has_numbers = d["num_numbers"] > 0

        def value(name, *shape):
            return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        memory = (self.memories, n, d["hidden_size"])
        previous = len(d["num_actions"]) + (d["num_numbers"] + 1 if has_numbers else 0)
        inputs = [value("observations", n, d["observation_size"]), value("previous", n, previous)]
        outputs = [value("value", n)]
        if d["num_actions"]:
            outputs.append(value("logits", n, sum(d["num_actions"])))
        if has_numbers:
            outputs.append(value("means", n, d["num_numbers"]))
        if self.memories:
            inputs.append(value("memory", *memory))
            outputs.append(value("new_memory", *memory))
        used = {name for _, names, _, _ in self.nodes for name in names}
        arrays = [onnx.numpy_helper.from_array(x, name) for name, x in self.arrays.items() if name in used]
        nodes = [onnx.helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in self.nodes]
        return onnx.helper.make_graph(nodes, f"pufferjax {d['env']}", inputs, outputs, arrays)
