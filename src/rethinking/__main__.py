"""Makes `python -m rethinking` the same as the command `rethinking`."""

from rethinking.cli import main

if __name__ == "__main__":
    main()
