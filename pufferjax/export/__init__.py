"""Policies outside JAX: what a run has learned as a file that other programs play, without pufferjax.

network.py        a trained policy as a list of layers and their arrays
npz.py            that as one .npz file
numpy_player.py   what plays such a file: NumPy alone, one file to copy
onnx_model.py     the same layers as an ONNX model
"""
