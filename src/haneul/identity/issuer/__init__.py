"""The platform's OpenID Connect issuer: who signed on in a browser gets tokens for programs."""
