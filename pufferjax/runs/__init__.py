"""One run on a machine: its clock, its signals, its folder and its screen. Everything here may block, print or write.

run.py is the loop; run_config what it is given and config.toml; journal, metrics and checkpoint what it remembers;
dashboard what it shows meanwhile; files how all of them write.
"""
