"""Many runs: a sweep looks for the settings with the best score at every cost, on one machine or many.

Optuna keeps the trials, in SQLite or PostgreSQL, and draws them; what is ours is around it. plan is what a sweep is,
space what it varies, prepare a trial's run, repair what of it cannot be run as it is; protein is the sampler that knows
cost, gaussian_process its model, early_stop the bar under which a run ends; trials is how trials are shared out to
workers and taken from dead ones, shares how a machine's devices are, worker what a worker does, run the processes of a
trial, child what ties them to it, results what a run is worth; report is what is said in the end.
"""
