//! The signature algorithms there are.

use std::fmt;
use std::str::FromStr;

use ring::signature as sig;

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037, section 3.1). Symmetric ones and `none` cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alg {
    /// ECDSA on P-256 with SHA-256: what Dayfly signs with by default.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256: what Kubernetes signs with by default.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519.
    EdDsa,
}

/// What a key of this algorithm is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    P256,
    P384,
    Rsa,
    Ed25519,
}

impl Alg {
    /// Its name in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Kind::Rsa,
            Self::EdDsa => Kind::Ed25519,
        }
    }

    /// How ring checks it where the public key is one run of bytes: a point, or DER of an RSA key.
    pub(crate) fn verification(self) -> &'static dyn sig::VerificationAlgorithm {
        match self {
            Self::Es256 => &sig::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &sig::ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &sig::ED25519,
            Self::Rs256 => &sig::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &sig::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &sig::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &sig::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &sig::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &sig::RSA_PSS_2048_8192_SHA512,
        }
    }

    /// How ring checks it where the public key is RSA's modulus and exponent.
    pub(crate) fn rsa_verification(self) -> Option<&'static sig::RsaParameters> {
        match self {
            Self::Rs256 => Some(&sig::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&sig::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&sig::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&sig::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&sig::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&sig::RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }

    /// How ring signs with it where the key is RSA's.
    pub(crate) fn rsa_signing(self) -> Option<&'static dyn sig::RsaEncoding> {
        match self {
            Self::Rs256 => Some(&sig::RSA_PKCS1_SHA256),
            Self::Rs384 => Some(&sig::RSA_PKCS1_SHA384),
            Self::Rs512 => Some(&sig::RSA_PKCS1_SHA512),
            Self::Ps256 => Some(&sig::RSA_PSS_SHA256),
            Self::Ps384 => Some(&sig::RSA_PSS_SHA384),
            Self::Ps512 => Some(&sig::RSA_PSS_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not an algorithm that is accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAlg;

impl FromStr for Alg {
    type Err = NotAnAlg;

    fn from_str(name: &str) -> Result<Self, NotAnAlg> {
        Ok(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            // RFC 9864 names the curve instead; both say the same for a key on Ed25519.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return Err(NotAnAlg),
        })
    }
}
