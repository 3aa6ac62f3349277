//! Connect, authenticate, retry, and a handle that stays fresh.
