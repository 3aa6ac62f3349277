//! The embedded lease store: sled, one writer, durable before it answers.
