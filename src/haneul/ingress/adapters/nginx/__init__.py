"""Stock nginx, with Lua that spreads requests over endpoints."""
