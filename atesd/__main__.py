"""``python -m atesd`` is the console command ``atesd``: for launchers that start modules (``torchrun -m atesd``)."""

from atesd.commands.cli import main

if __name__ == "__main__":
    main()
