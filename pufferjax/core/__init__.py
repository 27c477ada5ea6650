"""The algorithm: pure functions of arrays, to be jitted, vmapped and imported by anyone. No files, clocks or terminals.

train.py is one epoch from top to bottom; its parts are state_set, rollout, actions, policy, ppo, losses, distributions.
config and types say what goes in and what flows. parallel runs an epoch on several devices, two_programs on
accelerators, with its device_epoch there and its host_state_set here (shares, waiting); epochs chooses. evaluate and
diagnostics measure.
"""
