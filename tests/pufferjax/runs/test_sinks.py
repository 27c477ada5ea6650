"""TensorBoard and Weights & Biases beside metrics.jsonl: what they get, after a resume too; none ends a run."""

import json
import textwrap

import pytest

import pufferjax
from pufferjax.runs import sinks
from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.run_config import RunOptions, read_config


@pytest.fixture
def train(tiny_env, tiny_config):
    def train(run_dir, total_steps=1024, **changes):
        settings = {"seed": 3, "eval_episodes": 20, "devices": 1, "show": False, "checkpoint_interval_seconds": 0}
        config = tiny_config(total_steps=total_steps)
        return pufferjax.train(tiny_env, config, run_dir=run_dir, **{**settings, **changes})

    return train


def scalars(folder):
    """{name: {step: value}} of all event files, without what a later file purged."""
    from tensorboardX.proto.event_pb2 import Event

    def records(content):
        """Each is a length in 8 bytes, its checksum in 4, the event, its checksum in 4."""
        while content:
            size = int.from_bytes(content[:8], "little")
            yield content[12 : 12 + size]
            content = content[16 + size :]

    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for record in records(path.read_bytes()):
            event = Event.FromString(record)
            if event.session_log.status == event.session_log.START:
                found = {n: {s: v for s, v in x.items() if s < event.step} for n, x in found.items()}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


class Recorder:
    """A sink that remembers, or fails when told to."""

    def __init__(self, run_dir, settings, first_step):
        self.lines, self.first_step, self.closed, self.fails = [], first_step, False, False

    def write(self, figures, step):
        if self.fails or step == 768:
            raise OSError("no space left\nand more")
        self.lines.append((step, dict(figures)))

    def close(self):
        self.closed = True


def test_a_sink_that_fails_is_named_once_and_the_run_goes_on(monkeypatch, tmp_path, train):
    made = []
    monkeypatch.setitem(sinks._SINKS, "wandb", lambda *args: made.append(Recorder(*args)) or made[-1])

    def refuse(*args):
        raise RuntimeError("api_key not configured")

    monkeypatch.setitem(sinks._SINKS, "tensorboard", refuse)
    with pytest.warns(UserWarning, match="log: ") as warnings:
        result = train(tmp_path / "run", log=["wandb", "tensorboard"])
    assert result.stopped_by == "total_steps" and result.evaluation["episodes"] == 20
    assert [step for step, _ in made[0].lines] == [256, 512] and made[0].closed
    error = "".join(str(warning.message) for warning in warnings)
    assert error.count("wandb failed") == 1 and "no space left" in error and "and more" not in error
    assert error.count("tensorboard failed") == 1 and "RuntimeError: api_key not configured" in error
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    numbers = {name: x for name, x in records[0].items() if x is not None and name != "step"}
    assert made[0].lines[0][1] == numbers
    assert read_config(tmp_path / "run").options.log == ("wandb", "tensorboard")


def test_the_evaluation_goes_there_too(monkeypatch, tmp_path, train):
    made = []
    monkeypatch.setitem(sinks._SINKS, "wandb", lambda *args: made.append(Recorder(*args)) or made[-1])
    result = train(tmp_path / "run", total_steps=512, log=["wandb"])
    step, figures = made[0].lines[-1]
    assert step == 512 and figures["evaluation/perf"] == result.evaluation["perf"]


@pytest.mark.parametrize("log", ["wandb", ["mlflow"], ["wandb", "wandb"], [1]])
def test_names_that_are_none(log):
    with pytest.raises(ValueError, match="log must be a list of tensorboard and wandb, each at most once, got"):
        RunOptions(log=log)


def test_what_a_sink_needs_is_asked_for_before_the_run(monkeypatch, tmp_path, train):
    with pytest.raises(ValueError, match="log needs a run_dir"):
        train(None, log=["wandb"])
    monkeypatch.setitem(sinks._PACKAGES, "wandb", "no_such_package")
    with pytest.raises(ValueError, match=r"wandb needs the package no_such_package.*pip install 'pufferjax\[wandb\]'"):
        train(tmp_path / "run", log=["wandb"])
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_every_line_once_after_a_resume(tmp_path, train):
    pytest.importorskip("tensorboardX")
    run_dir = tmp_path / "run"
    train(run_dir, total_steps=512, log=["tensorboard"])
    train(run_dir, total_steps=1024, resume=True, log=["tensorboard"])
    records = read_metrics(run_dir / "metrics.jsonl")
    found = scalars(run_dir / "tensorboard")
    assert list(found["loss"]) == [record["step"] for record in records] == [256, 512, 768, 1024]
    for name in ("entropy", "state_set_size", "steps_per_second"):
        assert list(found[name].values()) == pytest.approx([record[name] for record in records], rel=1e-6)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert found["evaluation/perf"][1024] == pytest.approx(summary["evaluation"]["perf"])


def test_wandb_offline(tmp_path, train, monkeypatch, recwarn):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run_dir = tmp_path / "run"
    train(run_dir, total_steps=512, log=["wandb"])
    train(run_dir, total_steps=1024, resume=True, log=["wandb"])
    assert not [warning for warning in recwarn if "log: " in str(warning.message)]
    run_id = (run_dir / "wandb" / "run_id").read_text()
    files = sorted((run_dir / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(files) == 2  # the run and its resumption, which W&B joins by the id
    content = b"".join(path.read_bytes() for path in files)
    assert b"value_clip_fraction" in content and b"evaluation/perf" in content and b"ppo.learning_rate" in content


def test_several_devices_have_one_writer(tmp_path, run_on_devices):
    pytest.importorskip("tensorboardX")
    source = f"""
    import pufferjax
    env = envs.make("maze", size=5, num_mazes=64)
    config = pufferjax.TrainConfig(total_steps=512, num_envs=16, horizon=16,
        policy=pufferjax.PolicyConfig(hidden_size=8, num_layers=1), ppo=pufferjax.PPOConfig(minibatch_size=64),
        state_set=pufferjax.StateSetConfig(capacity=32, interval=8, warmup_envs=4, warmup_rewards=4))
    pufferjax.train(env, config, run_dir={str(tmp_path / "run")!r}, log=["tensorboard"], eval_episodes=0, show=False)
    print(len(jax.devices()))
    """
    assert int(run_on_devices(textwrap.dedent(source), 2)) == 2
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
