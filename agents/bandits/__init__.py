"""Bandits on a grid of reveal ratios, credited with the paper's delayed return R, learning online inside one run.

Each window one ratio of the grid is pulled; L windows later its return is known (agents/credit.py). With several groups
each has a bandit of its own that explores by itself; all are credited with the same R, since a run's row measures no
progress by group. The mathematics is in rules.py, what the bandits share in base.py, the bandits in policies.py.

To each group's bandit the other groups' choices are noise in the credit. Thompson sampling copes best: UCB1 and LinUCB draw
no random numbers but to break ties, so their groups may move in step and keep a wrong ratio. (``ATESD-Toy-v0`` with three
groups, 10 seeds, windows 201 to 300: 67% of the pulls at the best ratio against 51% and 55%, exploration 1.)

MABWiser, which has UCB1 and LinUCB, is not called here: it keeps running sums, so it can neither forget nor score old
returns anew, and its state can only be pickled. Each rule is a few lines of numpy; the tests hold UCB1 and LinUCB against
MABWiser's on shared histories.

The paper has no bandit, so every default is ours, chosen on ``ATESD-Toy-v0``.
"""

from agents.bandits.policies import Exp3sBandit, LinUcbBandit, ThompsonBandit, UcbBandit

__all__ = ["Exp3sBandit", "LinUcbBandit", "ThompsonBandit", "UcbBandit"]
