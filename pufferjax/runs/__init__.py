"""One run on a machine: its clock, its signals, its folder and its screen. Everything here may block, print or write.

run.py is a whole run: run_config what it is given (config.toml), run_dir whether its folder will do, loop what happens
between two epochs, budget and signals when it ends. journal, metrics and checkpoint are what it remembers, and load
reads that back; dashboard is what it shows meanwhile, machine where it ran, files how all of them write.
"""
