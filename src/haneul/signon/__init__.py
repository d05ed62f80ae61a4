"""haneul-auth, the sign-on gate: what nginx's ``auth_request`` asks whether a request may go on to an app."""
