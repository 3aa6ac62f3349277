//! The credential engines, a folder each; they sign only through Signer.
