"""Plays a policy that `pufferjax export RUN_DIR policy.npz` wrote. NumPy is all it needs: copy this file.

player = Player("policy.npz")
player.reset(num_agents)
choices, numbers = player.act(observations)      # [N, ...] -> int[N, heads], float[N, components] (None: has none)
player.forget(ended)                             # bool[N], after the environment's step: whose episode is over
"""

import json

import numpy as np


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))  # without overflow


class Player:
    def __init__(self, path, seed=0):
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.description = json.loads(str(self.arrays.pop("description")))
        self.rng = np.random.default_rng(seed)
        self.reset(1)

    def reset(self, num_agents):
        d = self.description
        memories = sum(layer["kind"] == "mingru" for layer in d["layers"])
        self.memory = np.zeros((memories, num_agents, d["hidden_size"]), np.float32)
        numbers = d["num_numbers"] + 1 if d["num_numbers"] else 0
        self.previous = np.zeros((num_agents, len(d["num_actions"]) + numbers), np.float32)

    def forget(self, ended):
        self.memory[:, ended] = 0
        self.previous[ended] = 0

    def look(self, observations):
        """(logits of every head side by side, means of the numbers, value) of one step, which it remembers."""
        d, a = self.description, self.arrays
        x = np.asarray(observations, np.float32).reshape(len(self.previous), d["observation_size"])
        if "norm_mean" in a:
            x = np.clip((x - a["norm_mean"]) * a["norm_factor"], a["norm_low"], a["norm_high"])
        x = np.concatenate([x, self.previous], axis=1)
        h = sum(e["scale"] * self._encode(e, x[:, e["begin"] : e["end"]]) for e in d["encoders"])
        memory = iter(self.memory)
        for layer in d["layers"]:
            if layer["kind"] == "dense":
                h = np.maximum(h, 0) @ a[layer["kernel"]] + a[layer["bias"]]
            else:
                u, gate, skip = np.split(h @ a[layer["kernel"]], 3, axis=1)
                m = next(memory)
                m += _sigmoid(gate) * (np.where(u >= 0, u + 0.5, _sigmoid(u)) - m)
                h = h + _sigmoid(skip) * (m - h)
        out = h @ a[d["decoder"]["kernel"]] + a[d["decoder"]["bias"]]
        logits, means, value = np.split(out, np.cumsum([sum(d["num_actions"]), d["num_numbers"]]), axis=1)
        return logits, means, value[:, 0]

    def _encode(self, e, x):
        a = self.arrays
        if e["kind"] == "one_hot":
            codes, cells = x.astype(np.int64), np.arange(x.shape[1])
            rows = a[e["table"]][cells, np.clip(codes - 1, 0, a[e["table"]].shape[1] - 1)]
            return (rows * ((codes >= 1) & (codes <= a[e["table"]].shape[1]))[..., None]).sum(axis=1) + a[e["bias"]]
        if e["kind"] == "linear":
            return x @ a[e["kernel"]] + (a[e["bias"]] if "bias" in e else 0)
        own, entities = x[:, : e["num_self"]], x[:, e["num_self"] :].reshape(len(x), -1, e["entity_size"])
        units = np.maximum(entities @ a[e["entity_kernel"]] + a[e["entity_bias"]], 0)
        h = (units @ a[e["kernel"]]).max(axis=1) + a[e["bias"]]
        return h + own @ a[e["self_kernel"]] if "self_kernel" in e else h

    def act(self, observations, mask=None, greedy=False):
        """mask: bool[N, sum of num_actions], what is allowed. greedy: the likeliest choice, the mean number."""
        d, a = self.description, self.arrays
        logits, means, _ = self.look(observations)
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        noise = 0 if greedy else self.rng.gumbel(size=logits.shape)  # the largest of logits + Gumbel noise is a draw
        heads = np.split(logits + noise, np.cumsum(d["num_actions"])[:-1], axis=1) if d["num_actions"] else []
        choices = np.stack([head.argmax(axis=1) for head in heads], axis=1) if heads else None
        parts, numbers = [] if choices is None else [choices + 1], None
        if d["num_numbers"]:
            y = means if greedy else means + a["number_std"] * self.rng.normal(size=means.shape)
            y = np.clip(y, a["number_low"], a["number_high"])
            numbers = (a["number_offset"] + a["number_scale"] * y).astype(np.float32)
            parts += [y, np.ones((len(y), 1))]
        if d["shows_previous_action"]:
            self.previous[:] = np.concatenate(parts, axis=1)
        return choices, numbers
