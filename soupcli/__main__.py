"""`python -m soupcli` is `soup`."""

from soupcli.cli.app import main

if __name__ == "__main__":
    main()
