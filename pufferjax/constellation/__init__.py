"""Constellation: many runs looked at together, in a browser. Reads run directories and writes nothing into them.

folders finds the run directories, one_run reads one of them, config_text and samples its files without reading more of
them than is shown, collection keeps all of them, cached from one start to the next by cache. server serves page/, and
export makes one file of it. The name of the folder above a run is the name of its experiment.
"""
