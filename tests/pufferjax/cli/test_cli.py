"""The `pufferjax` command, in-process and as a process of its own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pufferjax import cli
from pufferjax.cli.train import parse_train
from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.run import train
from pufferjax.runs.run_config import read_config


def command(*arguments, **options):
    arguments = [sys.executable, "-m", "pufferjax", *map(str, arguments)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="session")
def cli_run(tmp_path_factory, tiny_flags):
    """(run directory, stdout, stderr) of a training process."""
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    process = command("train", "maze", *tiny_flags, "--seed", 3, "--run-dir", run_dir)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return run_dir, out, err


def test_train_is_the_library_function(cli_run):
    run_dir, _, _ = cli_run
    config = read_config(run_dir)
    library = train(config.make_env(), config.train, seed=3, eval_episodes=0, devices=1, show=False)
    times = ("wall_seconds", "steps_per_second")
    for ours, theirs in zip(read_metrics(run_dir / "metrics.jsonl"), library.metrics, strict=True):
        assert {k: v for k, v in ours.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}


def test_output_is_plain_lines_where_there_is_no_terminal(cli_run):
    run_dir, out, _ = cli_run
    assert "\x1b" not in out and "│" not in out
    assert re.search(r"^step 2,048 \(100%\)  [\d,]+ steps/s  ", out, re.MULTILINE)
    assert f"evaluate it with: pufferjax eval {run_dir}" in out
    assert re.search(r"^unseen levels: perf 0\.\d+ over 20 fresh episodes", out, re.MULTILINE)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("streams", [">/dev/full 2>/dev/full", "<&- >&- 2>&-", "| head -1"])
def test_output_is_never_worth_a_run(cli_run, tmp_path, tiny_flags, streams):
    run_dir = tmp_path / "run"
    flags = [*tiny_flags, "--seed", "3", "--run-dir", str(run_dir), "--print-interval-seconds", "0"]
    line = f"{shlex.join([sys.executable, '-m', 'pufferjax', 'train', 'maze', *flags])} {streams}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count("\n") == ("head" in streams)
    assert (run_dir / "checkpoints" / "2048").is_dir()
    summary, usual = (json.loads((path / "summary.json").read_text()) for path in (run_dir, cli_run[0]))
    assert summary["evaluation"]["perf"] == usual["evaluation"]["perf"]
    assert len(read_metrics(run_dir / "metrics.jsonl")) == 8  # nothing else was written into it


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_that_is_its_output_says_that_it_is_lost(unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    arguments = [sys.executable, "-m", "pufferjax", "--help"]
    with open("/dev/full", "w") as file:
        done = subprocess.run(arguments, stdout=file, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == "pufferjax: error: the output cannot be written: No space left on device\n"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


def test_eval_prints_one_json_object(cli_run, capsys, tmp_path):
    run_dir, _, _ = cli_run
    gif = tmp_path / "episode.gif"
    assert cli.main(["eval", str(run_dir), "--episodes", "20", "--json", "--gif", str(gif)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 20 and result["levels"] == "unseen" and result["step"] == 2048
    summary = json.loads((run_dir / "summary.json").read_text())
    assert result["perf"] == summary["evaluation"]["perf"]  # the same episodes as those of the final evaluation
    assert gif.stat().st_size > 0 and result["gif"]["path"] == str(gif)


def test_eval_on_seen_levels_in_words(cli_run, capsys):
    assert cli.main(["eval", str(cli_run[0]), "--episodes", "20", "--seen", "--greedy"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("maze, seen levels, 20 fresh episodes") and re.search(
        r"^perf +[01]\.\d{4} ", out, re.MULTILINE
    )


def test_json_alone_on_stdout_of_a_process(cli_run):
    process = command("eval", cli_run[0], "--episodes", 5, "--json")
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and json.loads(out)["episodes"] == 5 and out.count("\n") == 1


@pytest.mark.parametrize(("number", "status", "delay"), [(signal.SIGINT, 130, 0.5), (signal.SIGTERM, 143, 6)])
def test_a_start_that_takes_minutes_can_be_stopped(tmp_path, number, status, delay):
    # Compiles, then walks for minutes: in mazes of this size a random walk hardly meets a reward.
    flags = ["--env.size", 61, "--env.num-mazes", 16, "--state-set.warmup-rewards", 10**6, "--devices", 1]
    process = command("train", "maze", *flags, "--run-dir", tmp_path / "run")
    while not (tmp_path / "run" / "config.toml").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(delay)
    process.send_signal(number)
    start = time.monotonic()
    _, err = process.communicate(timeout=300)
    assert time.monotonic() - start < 4 and process.returncode == status  # two seconds, and the load of a test machine
    assert err.startswith(f"pufferjax: warning: stopped by {number.name} before the first epoch; --run-dir")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_can_be_evaluated(tmp_path, capsys, number, status, tiny_flags):
    run_dir = tmp_path / "run"
    process = command("train", "maze", *tiny_flags, "--total-steps", 10**9, "--log-interval", 20, "--run-dir", run_dir)
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert f"stopped by {number.name}" in out and f"pufferjax eval {run_dir}" in out and err == ""
    step = read_metrics(metrics)[-1]["step"]
    assert json.loads((run_dir / "summary.json").read_text())["stopped_by"] == number.name
    assert cli.main(["eval", str(run_dir), "--episodes", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == step


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--nonsense 3", "Unrecognized options: --nonsense"),
        ("--env.sise 5", "--env.size"),
        ("--env.size 4", "pufferjax: error: maze: size must be an integer in [5, 127], got 4"),
        ("--ppo.optimizer sgd", "('muon', 'aurora', 'adam', 'schedule_free')"),
        (
            "--ppo.minibatch-size 100",
            "pufferjax: error: ppo.minibatch_size must be a multiple of horizon = 16, got 100",
        ),
        ("--state-set.fraction 1.5", "pufferjax: error: state_set.fraction must be a number in [0, 1), got 1.5"),
        ("--num-envs many", "--num-envs"),
        ("--max-seconds -1", "pufferjax: error: max_seconds must be a number > 0"),
        ("--seed -1", "pufferjax: error: seed must be an integer in [0, 4294967295], got -1"),
    ],
)
def test_bad_flags(capsys, flags, message, tmp_path, tiny_flags):
    run_dir = tmp_path / "run"
    assert cli.main(["train", "maze", *tiny_flags, "--run-dir", str(run_dir), *flags.split()]) == 2
    captured = capsys.readouterr()
    words = " ".join(captured.err.replace("│", " ").split())  # tyro wraps its messages
    assert message in words and captured.out == "" and "Traceback" not in words
    if message.startswith("pufferjax: error"):
        assert captured.err.count("\n") == 1
    assert not run_dir.exists()


def test_run_directory_in_use(cli_run, capsys, tiny_flags):
    assert cli.main(["train", "maze", *tiny_flags, "--run-dir", str(cli_run[0])]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_resume_of_a_finished_run_says_so(cli_run, capsys):
    run_dir, _, _ = cli_run
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert cli.main(["train", "maze", "--run-dir", str(run_dir), "--resume"]) == 0
    assert f"{run_dir} has finished (total_steps reached after 2,048 steps)" in capsys.readouterr().out
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_resume_takes_the_settings_of_the_run(cli_run):
    run_dir, _, _ = cli_run
    same = parse_train("maze", ["--run-dir", str(run_dir), "--resume"])
    assert same.resume and same.config == read_config(run_dir)
    flags = ["--run-dir", str(run_dir), "--resume", "--seed", "3", "--total-steps", "4096", "--keep-checkpoints", "1"]
    config = parse_train("maze", flags).config
    assert (config.train.total_steps, config.options.keep_checkpoints, config.options.seed) == (4096, 1, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed 4", "was started with --seed 3; resumed it cannot have 4 (only --total-steps, --max-seconds, "),
        ("--ppo.learning-rate 0.5", "was started with --ppo.learning-rate"),
        ("--env.size 7", "was started with --env.size 5; resumed it cannot have 7"),
    ],
)
def test_resume_refuses_other_settings(cli_run, capsys, flags, message):
    assert cli.main(["train", "maze", "--run-dir", str(cli_run[0]), "--resume", *flags.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("pufferjax: error: ") and err.count("\n") == 1


def test_resume_of_nothing(capsys, tmp_path, cli_run):
    assert cli.main(["train", "maze", "--resume"]) == 2
    assert "--resume needs --run-dir" in capsys.readouterr().err
    assert cli.main(["train", "maze", "--resume", "--run-dir", str(tmp_path)]) == 2
    assert "is not a run directory: it has no config.toml" in capsys.readouterr().err


def test_resume_with_no_good_checkpoint(capsys, tmp_path, cli_run):
    run_dir = shutil.copytree(cli_run[0], tmp_path / "run")
    (run_dir / "summary.json").unlink()
    (run_dir / "checkpoints" / "2048" / "progress.json").write_text("{}")
    for command in (["train", "maze", "--resume", "--run-dir", str(run_dir)], ["eval", str(run_dir)]):
        assert cli.main(command) == 2
        err = capsys.readouterr().err
        assert "2048 is damaged or of another run: progress.json is not as it was written" in err
        assert err.startswith("pufferjax: error: ") and err.count("\n") == 1


@pytest.mark.skipif(not os.path.isdir("/sys"), reason="needs a folder in which not even root may write")
def test_read_only_directory(capsys, tiny_flags):
    assert cli.main(["train", "maze", *tiny_flags, "--run-dir", "/sys/pufferjax-run"]) == 2
    err = capsys.readouterr().err
    assert (
        err.startswith("pufferjax: error: run directory /sys/pufferjax-run cannot be written") and err.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ""),
        (
            ["trane"],
            "unknown command 'trane'; valid are train, eval, play, states, export, sweep, sweep-worker, constellation, "
            "envs, bench, doctor",
        ),
        (["train"], "ENV is one of maze"),
        (["train", "labyrinth"], "name must be one of maze"),
        (["envs", "maze"], "takes nothing, or one of gymnax:,"),
        (["envs", "maze:", "x"], "takes nothing, or one of gymnax:,"),
        (["bench"], "usage: pufferjax bench envs|train|ops"),
        (["bench", "opps"], "usage: pufferjax bench envs|train|ops"),
        (["eval", "/"], "/ is not a run directory"),
        (["eval", "/", "--episodes", "0"], "--episodes must be an integer >= 1, got 0"),
        (["eval", "/", "--seed", "4294967296"], "--seed must be an integer in [0, 4294967295], got 4294967296"),
        (["play", "/", "--seed", "-1"], "--seed must be an integer in [0, 4294967295], got -1"),
        (["eval"], "run-dir"),
        (["states", "/"], "/ is not a run directory"),
    ],
)
def test_bad_commands(capsys, arguments, message):
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_states_draws_and_tells_what_the_state_set_holds(cli_run, capsys, tmp_path):
    from PIL import Image

    run_dir, _, _ = cli_run
    picture = tmp_path / "states.png"
    assert cli.main(["states", str(run_dir), "--output", str(picture)]) == 0
    out = capsys.readouterr().out
    last = read_metrics(run_dir / "metrics.jsonl")[-1]
    assert f"step 2,048: {last['state_set_size']:.0f} states\n" in out and f"picture: {picture}" in out
    assert re.search(r"^steps to the goal +0 % [1-9]", out, re.MULTILINE)
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 500
    assert cli.main(["states", str(run_dir), "--output", str(picture), "--step", "2048"]) == 0
    assert capsys.readouterr().out == out
    assert cli.main(["states", str(run_dir), "--output", str(picture), "--step", "7"]) == 2
    assert "has no checkpoint of step 7; there are 2048" in capsys.readouterr().err
    assert cli.main(["states", str(run_dir), "--output", str(tmp_path / "absent" / "states.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_eval_of_a_run_without_checkpoint(capsys, tmp_path, cli_run):
    (tmp_path / "config.toml").write_text((cli_run[0] / "config.toml").read_text())
    assert cli.main(["eval", str(tmp_path)]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["train", "maze", "--help"], ["eval", "--help"]]
)
def test_help(capsys, arguments):
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "usage" in captured.out + captured.err


def test_train_help_explains_the_fields(capsys):
    cli.main(["train", "maze", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--state-set.fraction FLOAT of the environments that restart from it in every epoch" in out


def test_envs(capsys):
    assert cli.main(["envs"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "environment"
    assert any(row.startswith("brax:NAME") and "pufferjax envs brax:" in row for row in rows)
    maze = next(row for row in rows if row.startswith("maze"))
    assert "u8[11, 11]" in maze and "2450" in maze and "size=35" in maze


def test_importing_the_command_changes_nothing_global():
    code = (
        "import os, signal, warnings, logging; before = (dict(os.environ), signal.getsignal(signal.SIGINT), "
        "len(logging.getLogger().handlers)); import pufferjax.cli; after = (dict(os.environ), "
        "signal.getsignal(signal.SIGINT), len(logging.getLogger().handlers)); assert before == after; import sys; "
        "assert 'orbax' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
@pytest.mark.parametrize("arguments", ["envs", "train chain_mdp --run-dir RUN", "bench ops --tiny"])
def test_a_platform_that_is_not_there_is_one_line(tmp_path, platform, arguments):
    if platform == "cuda" and shutil.which("nvidia-smi"):
        pytest.skip("it may be there")
    arguments = arguments.replace("RUN", str(tmp_path / "run")).split()
    process = command(*arguments, env=os.environ | {"JAX_PLATFORMS": platform})
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2 and out == "" and err.count("\n") == 1
    assert err.startswith(f"pufferjax: error: JAX has no device: JAX_PLATFORMS is '{platform}'")
    assert not list(tmp_path.iterdir())
