"""What another package may add to hpcjobs: the examples of CONTRIBUTING.md, run by tests/test_extending.py.

Its pyproject.toml would have

    [project.entry-points."hpcjobs.metrics"]
    digits = "hpcjobs_extra.metrics:Digits"
    [project.entry-points."hpcjobs.engines"]
    echo = "hpcjobs_extra.engines:Echo"
    mirror = "hpcjobs_extra.engines:Mirror"
    [project.entry-points."hpcjobs.jobs"]
    count = "hpcjobs_extra.jobs:add_count"
    quiz = "hpcjobs_extra.jobs:add_quiz"
    [project.scripts]
    hpcjobs-extra = "hpcjobs_extra.verbs:main"
"""
