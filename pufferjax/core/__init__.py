"""The algorithm: pure functions of arrays, to be jitted, vmapped and imported by anyone. No files, clocks or terminals.

train.py is one epoch from top to bottom; its parts are state_set, rollout, policy, ppo, losses, distributions. config
and types say what goes in and what flows. parallel and host_state_set run an epoch on several devices and on
accelerators, epochs chooses between them. evaluate and diagnostics measure.
"""
