"""The table of agents that come with the package: an agent of our own is added by a line.

Controllers are imported when one is made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        form: How the spec is written, such as "linear:A:B": a name, and a capital letter for each reveal ratio after
            it.
        meaning: One sentence.
        target: The class, "module:Class", or a function with the arguments (env, seed=0, **options).
        ratios: The constructor's arguments that the reveal ratios go to, in order.
        least: If given, any number of ratios from this many may follow; they all go to the one name in ``ratios``.
        needs: Module of an extra without which it cannot be used, or None.
    """

    form: str
    meaning: str
    target: str
    ratios: tuple[str, ...] = ()
    least: int | None = None
    needs: str | None = None

    @property
    def name(self) -> str:
        """The part before the first colon."""
        return self.form.partition(":")[0]

    @property
    def num_ratios(self) -> int:
        """Ratios that must follow the name."""
        return len(self.ratios) if self.least is None else self.least


Table = tuple[Entry, ...]
"""Names that a spec may begin with: ``AGENTS``, or those of a program that has more."""

AGENTS: Table = (
    Entry(
        "beta",
        "The paper's controller: a Beta policy trained by REINFORCE inside the run.",
        "agents.beta:BetaController",
    ),
    Entry(
        "fixed:A", "The reveal ratio A in every window; fixed:1 is OPSD.", "agents.schedules:FixedSchedule", ("ratio",)
    ),
    Entry("random", "A uniformly random reveal ratio in every window.", "agents.schedules:RandomSchedule"),
    Entry(
        "linear:A:B",
        "From A to B in a straight line over the run.",
        "agents.schedules:LinearSchedule",
        ("start", "end"),
    ),
    Entry(
        "cosine:A:B",
        "From A to B over the run along half a cosine: slowly at both ends.",
        "agents.schedules:CosineSchedule",
        ("start", "end"),
    ),
    Entry(
        "staged:A:B[:C...]",
        "One ratio after the other, in stages of equal length.",
        "agents.schedules:StagedSchedule",
        ("ratios",),
        least=2,
    ),
    Entry(
        "binomial",
        "UFT's hint schedule: a binomial number of steps, whose mean falls along a cosine.",
        "agents.schedules:BinomialSchedule",
    ),
    Entry(
        "feedback",
        "Holds the teacher-student mismatch at a set point, by integral control.",
        "agents.feedback:FeedbackController",
    ),
    Entry(
        "lookahead",
        "Tries a few ratios on branches of the run, goes back, and takes the best; lookahead:every=9 looks every 9 windows.",
        "agents.lookahead:LookaheadController",
    ),
    Entry(
        "grounded",
        "Rule: the ratio of a grid whose teacher knows the reference solutions best (highest grounded score).",
        "agents.scored:GroundedController",
    ),
    Entry(
        "mismatch",
        "Rule: the ratio of a grid whose teacher is nearest to what the student writes (lowest mismatch).",
        "agents.scored:MismatchController",
    ),
    Entry(
        "balance",
        "Rule: the ratio of a grid with the highest grounded score minus weight x mismatch (weight=0.06).",
        "agents.scored:BalanceController",
    ),
    Entry(
        "meta",
        "Learned on other students: the ratio with the best weighted sum of both scores (meta:file=weights.json for one's own).",
        "agents.scored:MetaController",
    ),
    Entry(
        "oracle",
        "On the bench: the best schedule that a search found for the instance, on other seeds; what others are measured against.",
        "agents.oracle:OracleSchedule",
    ),
    Entry(
        "ppo",
        "Stable-Baselines3's PPO, by default with a Beta policy (policy=gaussian is its own).",
        "agents.sb3.agent:ppo",
    ),
    Entry("a2c", "Stable-Baselines3's A2C, by default with a Beta policy.", "agents.sb3.agent:a2c"),
    Entry("sac", "Stable-Baselines3's SAC.", "agents.sb3.agent:sac"),
    Entry("td3", "Stable-Baselines3's TD3, with Gaussian action noise.", "agents.sb3.agent:td3"),
    Entry("dqn", "Stable-Baselines3's DQN on a grid of ratios (grid=11).", "agents.sb3.agent:dqn"),
    Entry(
        "recurrent_ppo",
        "sb3-contrib's PPO with an LSTM, by default with a Beta policy.",
        "agents.sb3.agent:recurrent_ppo",
    ),
    Entry("tqc", "sb3-contrib's TQC: SAC with truncated quantile critics.", "agents.sb3.agent:tqc"),
    Entry("ucb", "UCB1 on a grid of ratios; ucb:discount=0.95 or ucb:window=50 forgets.", "agents.bandits:UcbBandit"),
    Entry(
        "thompson",
        "Thompson sampling on a grid of ratios; discount and window as for ucb.",
        "agents.bandits:ThompsonBandit",
    ),
    Entry("exp3s", "Exp3.S on a grid of ratios; slow, and assumes nothing.", "agents.bandits:Exp3sBandit"),
    Entry(
        "linucb",
        "LinUCB on a grid of ratios, in the context of the paper's six features; discount and window as for ucb.",
        "agents.bandits:LinUcbBandit",
    ),
)
"""The agents that come with the package."""
