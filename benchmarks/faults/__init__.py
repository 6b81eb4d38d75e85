"""A campaign of faults: kills, damaged files and hostile inputs, one oracle; ``python -m benchmarks.faults --minutes 10``.

- *Kills*: a command is killed (SIGKILL) at a random instant, or right before a file operation, and resumed; what is there at the end
  is what would have been there without the kills.
- *Damages*: a file that we or others write is damaged, then read by everything that reads it. Right are an error of ours that names
  the file, and the result of the undamaged file.
- *Inputs*: every reader is handed what nobody should hand it. Right are an error of ours and, where the input can be used, its use.

Each case runs in a process of its own, in a folder of its own among files that are not ours, and has an id (``kind:seed:number``)
that makes it again. What counts as wrong is written down once, in ``benchmarks.faults.oracle``.
"""
