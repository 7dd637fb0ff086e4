"""Trainer of `actrelax train`: from the options of an experiment to the files of a run."""
