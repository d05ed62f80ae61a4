"""What the gate works with: the web server, files, the platform's API."""
