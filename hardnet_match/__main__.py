"""`python -m hardnet_match` is the same as `hardnet-match`."""

from .cli import main

if __name__ == "__main__":
    main()
