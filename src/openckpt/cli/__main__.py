"""``python -m openckpt.cli``: the program where the script is not on the PATH."""

from openckpt.cli import main

if __name__ == "__main__":
    main()
