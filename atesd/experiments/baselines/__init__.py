"""Ways to train a student without a teacher, as runs like any other: the same windows, problems, probe and files.

They are no controllers, because they take no reveal ratio: ``atesd.experiments.run.execute`` plays them in an environment of
their own (``environment.BaselineEnv``), whose step measures what they trained.
"""
