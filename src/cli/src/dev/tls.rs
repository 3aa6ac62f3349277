//! A certificate authority for this machine, and the broker's certificate by it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// What the broker serves with and what its clients trust, as PEM.
pub(crate) struct Tls {
    /// The authority's certificate.
    pub(crate) ca: String,
    /// The broker's certificate.
    pub(crate) certificate: String,
    /// Its private key.
    pub(crate) key: String,
}

impl Tls {
    /// A new one, for localhost. The authority's key is forgotten: it signs nothing else.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(DnType::CommonName, "dayfly dev");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "dayfly");
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;
        Ok(Self { ca: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
