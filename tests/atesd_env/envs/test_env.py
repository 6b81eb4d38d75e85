"""The contract of the scalar environment, the same for every kind of students."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from atesd_env.envs.branch import OUTCOMES, counterfactual
from atesd_env.envs.columns import COLUMNS, group_columns
from atesd_env.envs.env import ExposureEnv
from atesd_env.errors import AtesdError, ConfigError, NoEpisodeError
from tests.atesd_env.envs.kinds import Kind, Surrogate, Tiny, Toy

SB3_ADVICE = "We recommend you to use a symmetric and normalized Box action space"
SHARES = (0.2, 0.9, 0.5)


class EnvContract(Kind):
    """What every scalar environment promises, whoever its students are."""

    def step(self, env: Any, share: float) -> tuple[Any, ...]:
        """Makes a window and returns everything that can be observed of it, as what compares bit for bit."""
        observation, reward, terminated, truncated, info = env.step(np.full(env.config.groups, share * self.high))
        return (
            observation.tobytes(),
            repr(reward),
            terminated,
            truncated,
            repr(info),
            self.bits(env),
            repr(env.samples(9)),
        )

    def play(self, env: Any, shares: Any, seed: int | None = 5) -> list[Any]:
        observation, info = env.reset(seed=seed)
        return [(observation.tobytes(), repr(info)), *(self.step(env, share) for share in shares)]

    @pytest.fixture
    def env(self) -> Iterator[Any]:
        env = self.make()
        yield env
        env.close()

    def checked(self, groups: int) -> Any:
        """An environment that takes any action, for the checkers."""
        return self.make(groups, render_mode="ansi")

    @pytest.mark.parametrize("groups", [1, 3])
    def test_gymnasiums_checker_accepts_it(self, groups: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(self.checked(groups), skip_render_check=False)

    @pytest.mark.parametrize("groups", [1, 3])
    def test_stable_baselines_checker_accepts_it(self, groups: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Their advice about [-1, 1] actions is answered in the docs: [0, 1] is what a reveal ratio means.
            warnings.filterwarnings("ignore", message=SB3_ADVICE)
            check_env_sb3(self.checked(groups))

    @pytest.mark.parametrize("prefix", ["", "atesd_env:"])
    def test_it_is_made_by_id_with_fields_as_keywords(self, prefix: str) -> None:
        env = gymnasium.make(f"{prefix}{self.env_id}", gamma=0.5, **self.keywords(groups=2))
        made: Any = env.unwrapped
        assert isinstance(made, ExposureEnv)
        assert env.action_space.shape == (2,)
        assert made.feature_names == self.feature_names(2)
        assert made.config == self.config(2, gamma=0.5)
        with pytest.raises(ConfigError, match="did you mean 'gamma'"):
            gymnasium.make(self.env_id, gama=0.5, **self.keywords())

    def test_twins_are_identical_over_an_episode_and_another_seed_differs(self) -> None:
        first = self.play(self.make(), SHARES)
        assert self.play(self.make(), SHARES) == first
        other = self.play(self.make(), SHARES, seed=6)
        assert first[0][1] != other[0][1]
        assert all(left[0] != right[0] for left, right in zip(first[1:], other[1:], strict=True))

    def test_a_second_episode_does_not_remember_the_first(self, env: Any) -> None:
        first = self.play(env, (1.0, 0.0, 1.0))
        self.play(env, (0.3, 0.3), seed=8)
        assert self.play(env, (1.0, 0.0, 1.0)) == first

    def test_another_action_differs_from_there_on(self, env: Any) -> None:
        low, high = self.play(env, (0.5, 0.0, 0.5)), self.play(env, (0.5, 1.0, 0.5))
        assert low[:2] == high[:2]
        assert all(left[5] != right[5] for left, right in zip(low[2:], high[2:], strict=True))
        assert low[2][0] != high[2][0]

    def test_resets_without_a_seed_draw_new_runs_from_np_random(self, env: Any) -> None:
        seeds = [env.reset(seed=3)[1]["seed"], env.reset()[1]["seed"], env.reset()[1]["seed"]]
        other = self.make()
        assert [other.reset(seed=3)[1]["seed"], other.reset()[1]["seed"], other.reset()[1]["seed"]] == seeds
        assert seeds[0] == 3
        assert len(set(seeds)) == 3

    def test_global_generators_are_neither_read_nor_set(self, env: Any) -> None:
        np.random.seed(1)  # noqa: NPY002 (the global generator is the subject)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        first = self.play(env, (0.5,))
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        np.random.seed(2)  # noqa: NPY002
        assert self.play(env, (0.5,)) == first

    @pytest.mark.parametrize("groups", [1, 2])
    def test_info_is_the_whole_row(self, groups: int) -> None:
        env = self.make(groups)
        env.reset(seed=0)
        *_, info = env.step(np.full(groups, 0.25))
        row = [*COLUMNS, *group_columns(groups)]
        assert list(info)[: len(row)] == [column.name for column in row]
        for column in row:
            allowed = {"int": int, "float": float}.get(column.type, (float, type(None)))
            assert type(info[column.name]) is allowed or isinstance(info[column.name], allowed), column.name
        assert info["exposure/reveal_ratio"] == pytest.approx(0.25)

    def test_windows_are_numbered_and_count_updates(self, env: Any) -> None:
        env.reset(seed=0)
        infos = [env.step(self.action(0.5))[-1] for _ in range(self.windows)]
        assert [info["window"] for info in infos] == list(range(1, self.windows + 1))
        assert [info["update"] for info in infos] == [info["window"] * env.config.hold_window for info in infos]

    def test_reward_is_progress_plus_grounded(self) -> None:
        env = self.make(grounded_weight=0.7, progress="signed")
        _, start = env.reset(seed=3)
        _, reward, _, _, info = env.step(self.action(0.4))
        assert info["reward/progress"] == pytest.approx(start["probe/nll"] - info["probe/nll"])
        assert reward == info["reward/total"]
        assert reward == pytest.approx(info["reward/progress"] + 0.7 * info["probe/grounded"])

    def test_info_belongs_to_the_caller(self, env: Any) -> None:
        env.reset(seed=0)
        env.step(self.action(0.5))[-1]["probe/nll"] = -99.0
        assert env.population.runs[0].rows[0]["probe/nll"] != -99.0

    def test_the_observation_stays_inside_its_space(self) -> None:
        env = self.make(2)
        observations = [env.reset(seed=0)[0]]
        observations += [env.step(self.high * np.array([0.1, 0.9]))[0] for _ in range(self.windows)]
        assert all(env.observation_space.contains(observation) for observation in observations)

    def test_an_episode_is_truncated_after_its_windows_and_has_to_be_reset(self, env: Any) -> None:
        with pytest.raises(NoEpisodeError, match="call reset"):
            env.step(self.action(0.5))
        assert not env.is_running
        seen = self.play(env, [0.5] * self.windows)
        assert [step[2:4] for step in seen[1:]] == [(False, False)] * (self.windows - 1) + [(False, True)]
        assert not env.is_running
        with pytest.raises(NoEpisodeError, match="call reset"):
            env.step(self.action(0.5))
        env.reset()
        assert env.is_running

    @pytest.mark.parametrize("action", [[np.nan], [-0.1], [1.1], [0.5, 0.5], [], [[0.5]]])
    def test_a_refused_action_costs_nothing(self, env: Any, action: Any) -> None:
        env.reset(seed=5)
        before = self.bits(env)
        with pytest.raises(ConfigError, match="expected"):
            env.step(np.array(action, dtype=np.float32))
        assert self.bits(env) == before
        assert env.step(self.action(0.5))[-1]["window"] == 1

    def test_a_restored_snapshot_repeats_and_a_branch_leaves_its_parent(self, env: Any) -> None:
        self.play(env, (0.3,))
        state = env.snapshot()

        def go_on(share: float) -> list[Any]:
            env.restore(state)
            return [self.step(env, share) for _ in range(2)]

        first, branch, again = go_on(0.8), go_on(0.1), go_on(0.8)
        assert first != branch
        assert first == again

    def test_saved_states_go_on_bit_for_bit_elsewhere(self, env: Any, tmp_path: Path) -> None:
        *_, last = self.play(env, (0.3,))
        env.save_state(tmp_path / "state")
        followed = [self.step(env, share) for share in (0.1, 0.6)]
        other = self.make()
        observation, info = other.reset(seed=99, options={"state": tmp_path / "state"})
        assert observation.tobytes() == last[0]
        assert info["seed"] == 5
        assert [self.step(other, share) for share in (0.1, 0.6)] == followed
        env.load_state(tmp_path / "state")
        assert [self.step(env, share) for share in (0.1, 0.6)] == followed, "what came after is forgotten"

    def test_an_ended_episode_stays_ended(self, env: Any, tmp_path: Path) -> None:
        self.play(env, [0.5] * self.windows)
        env.save_state(tmp_path / "state")
        copies = [self.make(), self.make(), pickle.loads(pickle.dumps(env))]
        copies[0].load_state(tmp_path / "state")
        copies[1].restore(env.snapshot())
        for copy in copies:
            with pytest.raises(NoEpisodeError):
                copy.step(self.action(0.5))

    def test_states_that_do_not_fit_are_refused(self, env: Any, tmp_path: Path) -> None:
        for ask in (env.snapshot, env.checkpoint, lambda: env.save_state(tmp_path / "state")):
            with pytest.raises(NoEpisodeError, match="none was started"):
                ask()
        env.reset(seed=1)
        env.save_state(tmp_path / "state")
        other = self.make(**self.refused)
        other.reset(seed=2)
        before = self.bits(other)
        with pytest.raises(ConfigError, match=next(iter(self.refused))):
            other.load_state(tmp_path / "state")
        assert self.bits(other) == before

    def test_a_pickled_environment_goes_on_where_it_was(self, env: Any) -> None:
        assert pickle.loads(pickle.dumps(env)).config == env.config
        self.play(env, (0.3,))
        copy = pickle.loads(pickle.dumps(env))
        for share in (0.6, 0.9):
            assert self.step(env, share)[:6] == self.step(copy, share)[:6]
        assert env.reset()[1] == copy.reset()[1], "the next seed too"

    def test_counterfactuals_are_what_the_environment_itself_would_do(self, env: Any) -> None:
        with pytest.raises(AtesdError, match="call reset"):
            counterfactual(env, [0.1], 1)
        self.play(env, (0.5,))
        before = self.bits(env)
        frame = counterfactual(env, [0.0, self.high], 9)
        assert self.bits(env) == before
        assert frame["window"].tolist() == list(range(2, self.windows + 1)) * 2
        assert frame["truncated"].tolist() == ([False] * (self.windows - 2) + [True]) * 2
        for branch, share in enumerate((0.0, 1.0)):
            env.restore(state := env.snapshot())
            infos = [env.step(self.action(share))[-1] for _ in range(self.windows - 1)]
            env.restore(state)
            for name in OUTCOMES:
                expected = np.array([info[name] for info in infos], dtype=np.float64)
                found = frame.loc[frame["branch"] == branch, name]
                np.testing.assert_allclose(found, expected, rtol=max(self.tolerance, 1e-6), atol=1e-5, err_msg=name)

    @pytest.mark.parametrize("mode", ["ansi", "rgb_array", None])
    def test_render_shows_the_run_so_far(self, mode: str | None) -> None:
        env = self.make(render_mode=mode)
        env.reset(seed=0)
        empty = env.render()
        env.step(self.action(0.5))
        picture = env.render()
        if mode is None:
            assert picture is empty is None
        elif mode == "ansi":
            assert f"window 0 of {self.windows}" in empty
            assert f"window 1 of {self.windows}" in picture
            assert f"{0.5 * self.high:.2f}" in picture
        else:
            assert picture.dtype == np.uint8
            assert picture.shape == empty.shape
            assert (picture != empty).any()

    def test_an_unknown_render_mode_is_refused(self) -> None:
        spec = gymnasium.spec(self.env_id)
        with pytest.raises(ConfigError, match="render_mode: expected 'ansi', 'rgb_array' or None, got 'human'"):
            load_env_creator(str(spec.entry_point))(**spec.kwargs, **self.keywords(), render_mode="human")


class TestTiny(EnvContract, Tiny):
    pass


class TestToy(EnvContract, Toy):
    pass


class TestSurrogate(EnvContract, Surrogate):
    def checked(self, groups: int) -> Any:
        model = self.keywords(groups)["file"]
        for phase in (model.first, model.later):
            phase.support.high[:] = (
                9.0  # the checkers play any action, and one does not like a first window that ends the episode
            )
        return self.make(file=model, render_mode="ansi")
