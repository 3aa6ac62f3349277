//! A stand-in for the Kubernetes API, on loopback only, for dev and tests.
