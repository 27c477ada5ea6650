"""`pufferjax.run.load_run`, as scripts written before the rooms import it. The name is `pufferjax.load_run`."""

from pufferjax.runs.load import load_run

__all__ = ["load_run"]
