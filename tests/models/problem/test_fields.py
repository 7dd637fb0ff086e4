"""The keywords are the fields of a problem that have a default."""

from dataclasses import MISSING, fields

from actrelax.models.problem import ProblemFields, RelaxationProblem


def test_they_are_those_of_the_problem():
    optional = {f.name for f in fields(RelaxationProblem) if (f.default, f.default_factory) != (MISSING, MISSING)}
    assert ProblemFields.__annotations__.keys() == optional - {"assumptions"}
