"""`python -m parrotserve` is the command `parrot`, where that is on no path."""

from parrotserve.cli.main import main

if __name__ == "__main__":
    main()
