"""`pufferjax export RUN_DIR FILE`: what a run has learned as a file that other programs play."""

import dataclasses
from pathlib import Path

from pufferjax.cli.refusals import fail, refusals, warn

USAGE = """\
  pufferjax export RUN_DIR policy.npz|policy.onnx [--step 1000000]
      the policy as a file for NumPy alone (pufferjax/export/numpy_player.py plays it) or for ONNX runtimes
"""


def main(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args:
        """Writes the policy of a checkpoint in a form that other programs play."""

        run_dir: tyro.conf.Positional[Path]
        """The folder of the run, --run-dir of `pufferjax train`."""
        output: tyro.conf.Positional[Path]
        """The file, by its ending: .npz for NumPy, .onnx for ONNX runtimes (pip install 'pufferjax[onnx]')."""
        step: int | None = None
        """Of the checkpoint. Default: the latest one."""

    args = tyro.cli(Args, args=argv, prog="pufferjax export")
    writers = {".npz": _write_npz, ".onnx": _write_onnx}
    if args.output.suffix not in writers:
        raise fail(f"the file must end with {' or '.join(writers)}, got {args.output}")
    with refusals():
        import jax

        from pufferjax.core.optimizers import acting_params
        from pufferjax.export.network import network_of
        from pufferjax.runs.load import load_run
        from pufferjax.runs.paths import output_path

        output_path("FILE", args.output)
        config, _, policy, train_state = load_run(args.run_dir, args.step, warn)
        network = network_of(policy, jax.device_get(acting_params(config.train, train_state)))
        try:
            writers[args.output.suffix](network, args.output)
        except ImportError:
            raise fail("an .onnx file needs the package onnx: pip install 'pufferjax[onnx]'") from None
        except OSError as error:
            raise fail(error) from None
    numbers = sum(x.size for x in network.arrays.values())
    print(f"{args.output}: {numbers:,} numbers, {args.output.stat().st_size:,} bytes")
    return 0


def _write_npz(network, path) -> None:
    from pufferjax.export.npz import write_npz

    write_npz(network, path)


def _write_onnx(network, path) -> None:
    from pufferjax.export.onnx_model import write_onnx

    write_onnx(network, path)
