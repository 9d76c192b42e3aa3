"""`python -m parrotserve` is the command `parrot`, for environments in which that is not on the path."""

from parrotserve.cli.main import main

if __name__ == "__main__":
    main()
