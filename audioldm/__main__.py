"""``python -m audioldm`` is the command ``audioldm``."""

from audioldm.cli.app import main

if __name__ == "__main__":
    main()
