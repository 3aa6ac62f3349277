//! The keys and certificates of a control plane, as files in its folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{SigningKey, write};

/// Writes `ca.crt`, `server.crt` and `server.key`, and gives the first.
pub(crate) fn make_certificates(dir: &Path) -> Result<String> {
    make_certificates_for(dir, ["ca", "server"], &["localhost", "127.0.0.1", "kubernetes.default.svc"])
}

/// Writes the certificate of an authority, and one of its for a server of these names with its key, into files that begin so.
/// Gives the first.
pub(crate) fn make_certificates_for(dir: &Path, files: [&str; 2], names: &[&str]) -> Result<String> {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "dayfly test cluster");
    let ca_key = rcgen::KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut server = rcgen::CertificateParams::new(names)?;
    server.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
    let server_key = rcgen::KeyPair::generate()?;
    let server = server.signed_by(&server_key, &rcgen::Issuer::new(ca, ca_key))?;

    let [ca_file, server_file] = files;
    write(dir, &format!("{ca_file}.crt"), &ca_pem)?;
    write(dir, &format!("{server_file}.crt"), &server.pem())?;
    write(dir, &format!("{server_file}.key"), &server_key.serialize_pem())?;
    Ok(ca_pem)
}

/// Writes the private and the public key of this number. The API server takes PKCS #8 for the key that it signs with; of an EC
/// key that it verifies with, it takes the public half, or the private one in SEC 1, but not in PKCS #8.
pub(super) fn make_signing_key(dir: &Path, number: u16, kind: SigningKey) -> Result<()> {
    match kind {
        SigningKey::Es256 => {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            write(dir, &signing_key(number), &key.serialize_pem())?;
            write(dir, &public_key(number), &key.public_key_pem())?;
        }
        SigningKey::Rs256 => {
            openssl(dir, &["genrsa", "-out", &signing_key(number), "2048"])?;
            openssl(dir, &["rsa", "-in", &signing_key(number), "-pubout", "-out", &public_key(number)])?;
        }
    }
    Ok(())
}

fn openssl(dir: &Path, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("openssl").args(arguments).current_dir(dir).output().context("cannot run openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

pub(super) fn signing_key(number: u16) -> String {
    format!("service-account-{number}.key")
}

pub(super) fn public_key(number: u16) -> String {
    format!("service-account-{number}.pub")
}
