//! The key ring: generation, sealing at rest, publication; implements Signer.
