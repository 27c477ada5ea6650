"""A network as one .npz file, for `numpy_player.py`."""

import io
import json
import os

import numpy as np

from pufferjax.export.network import Network
from pufferjax.runs.files import write_atomically


def write_npz(network: Network, path: str | os.PathLike) -> None:
    """Arrays by name, and "description", the text of a JSON object. Atomic. Raises OSError."""
    stream = io.BytesIO()
    np.savez(stream, description=np.array(json.dumps(network.description)), **network.arrays)
    write_atomically(path, stream.getvalue())
