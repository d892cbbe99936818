"""Python of the user's: loaded, and watched while it runs, so that what it reads counts for kept scores."""
