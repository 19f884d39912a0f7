"""`python -m ctxkit` and the `ctxkit` command."""

from ctxkit.cli import main

if __name__ == "__main__":
    main()
