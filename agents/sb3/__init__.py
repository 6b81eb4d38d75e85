"""Stable-Baselines3's and sb3-contrib's algorithms as controllers; the names load torch when they are first used."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {"agent": ("SB3Agent", "a2c", "dqn", "load_agent", "make", "ppo", "recurrent_ppo", "sac", "td3", "tqc")},
)
