"""The built-in methods. Each is one file on the public contract, an example to start from."""
