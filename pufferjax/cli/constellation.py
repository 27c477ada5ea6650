"""`pufferjax constellation DIR...`: the runs in some folders, in a browser or as one page."""

import dataclasses
from pathlib import Path

from pufferjax.cli.refusals import refusals

USAGE = """\
  pufferjax constellation DIR... [--port 8420] [--host 127.0.0.1] [--export page.html]
      the runs in these folders side by side, in a browser; the name of the folder above a run is its experiment
"""


def main(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args:
        """Shows the runs in some folders, live ones included, in a browser. It writes nothing into them."""

        folders: tyro.conf.Positional[tuple[Path, ...]]
        """Folders with run directories in them, at any depth. Symbolic links are not followed."""
        host: str = "127.0.0.1"
        """The address to listen at. Any other than the default lets other machines read these runs."""
        port: int = 8420
        """The port to listen at, 0 to 65535; 0: any that is free."""
        export: Path | None = None
        """Instead of serving, write everything to this one HTML file, which opens without a network."""

    args = tyro.cli(Args, args=argv, prog="pufferjax constellation")
    with refusals():
        from pufferjax.constellation import server
        from pufferjax.constellation.collection import Collection
        from pufferjax.constellation.folders import roots_of
        from pufferjax.runs.paths import local_path, output_path

        if not args.folders:
            raise ValueError("DIR must be at least one folder of run directories")
        if not 0 <= args.port <= 65535:
            raise ValueError(f"--port must be an integer in [0, 65535], got {args.port}")
        server.check_packages(server.PACKAGES if args.export is None else ("plotly",))
        roots = roots_of([local_path("DIR", folder) for folder in args.folders])
        if args.export is not None:
            from pufferjax.constellation.export import export

            path = output_path("--export", args.export)
            print(f"{export(Collection(roots), path)} runs: {path}")
            return 0
        listener = server.bind(args.host, args.port)
    host, port = listener.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C ends it)", flush=True)
    server.serve(Collection(roots), args.host, listener)
    return 0
