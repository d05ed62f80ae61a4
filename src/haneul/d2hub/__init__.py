"""D2Hub: a registry of images, complete by the OCI distribution specification 1.1."""
