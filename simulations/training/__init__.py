"""The trainer behind `actrelax train`: from an experiment to a run's folder."""
