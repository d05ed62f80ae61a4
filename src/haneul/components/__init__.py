"""The pinned upstream programs and images: what they are, how they are built here, where the results lie."""
