"""Rebuilds the packaged students: "tiny" from a seed (`tiny`), and of it the bases with habits (`habits`, `bases`).

``python -m atesd_env.pretrain --out DIR`` rebuilds "tiny", with ``--student NAME`` a base with habits.
"""
