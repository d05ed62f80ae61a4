"""What D2Hub's ports are made of: files, SQL, memory, and the server."""
