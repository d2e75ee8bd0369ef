"""The plan cache: a query seen before skips Django's SQL compiler.

``query.py``: the Query that a vinyl queryset starts with.  It takes down what is
done to it and is built only when somebody needs more of it than that.
``shape.py``: a call without its values.  ``node.py``: the calls seen so far, as a
tree.  ``statement.py``: SQL that was compiled once, and how new values are bound
to it; ``constant.py``: of which statements.  docs/plans.md has the rule by which
this is always Django's answer.
"""
