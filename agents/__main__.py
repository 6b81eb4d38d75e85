"""``python -m agents`` is the console command ``atesd``: for launchers that start modules (``torchrun -m agents``)."""

from agents.cli import main

if __name__ == "__main__":
    main()
